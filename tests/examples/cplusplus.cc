/* SPDX-License-Identifier: Apache-2.0 */
/* From C++: the handle in a unique_ptr, results into an object by a captureless lambda. */
#include <cstdio>
#include <memory>
#include <string>

#include <millrace/counter.h>
#include <millrace/map.h>
#include <millrace/raw.h>

namespace
{

using Client = std::unique_ptr<mr_client, decltype(&mr_close)>;

struct Sum {
    int answers = 0;
    std::string last;
};

bool run(mr_client *client)
{
    mr_map *map = nullptr;
    if (mr_map_open(client, "cplusplus", &map) != MR_OK)
        return false;
    Sum sum;
    mr_then then = {[](mr_client *, const mr_result *result) {
                        auto *to = static_cast<Sum *>(result->arg);
                        to->answers++;
                        if (result->status == MR_OK)
                            to->last.assign(static_cast<const char *>(result->as.entry.key.data),
                                            result->as.entry.key.size);
                    },
                    &sum};
    for (int i = 0; i < 10; i++) {
        const std::string key = "key " + std::to_string(i);
        const mr_bytes bytes = {key.data(), key.size()};
        mr_put put = {};
        put.ttl_ns = 60 * INT64_C(1000000000);
        if (mr_map_put_start(map, bytes, bytes, &put, then, nullptr) != MR_OK)
            return false;
    }
    while (sum.answers < 10)
        if (mr_run(client, MR_FOR_EVER, nullptr) != MR_OK)
            return false;
    uint64_t size = 0;
    if (mr_map_size(map, &size) != MR_OK)
        return false;
    std::printf("%d answers, the last for %s; %llu entries\n", sum.answers, sum.last.c_str(),
                static_cast<unsigned long long>(size));
    return true;
}

} // namespace

int main()
{
    mr_client *raw = nullptr;
    const mr_status status = mr_connect(nullptr, nullptr, &raw);
    Client client(raw, &mr_close);
    if (status == MR_OK && run(client.get()))
        return 0;
    std::fprintf(stderr, "%s\n", mr_message(client.get()));
    return 1;
}
