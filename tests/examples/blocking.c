/* SPDX-License-Identifier: Apache-2.0 */
/* A complete client: counts a visit and remembers its guest. MILLRACE_SOCKET names the socket of a running node. */
#include <stdio.h>

#include <millrace/counter.h>
#include <millrace/map.h>

static enum mr_status visit(mr_client *client, const char *guest)
{
    mr_counter *visits;
    mr_map *guests;
    struct mr_entry entry;
    enum mr_status status;
    int64_t count;

    if ((status = mr_counter_open(client, "visits", &visits)) || (status = mr_map_open(client, "guests", &guests)) ||
        (status = mr_counter_increment(visits, 1, &count)) || /* on disk before it returns, and applied once */
        (status = mr_map_put(guests, mr_text("latest"), mr_text(guest), NULL, NULL)) ||
        (status = mr_map_get(guests, mr_text("latest"), &entry)))
        return status;
    printf("visit %lld, by %.*s\n", (long long)count, (int)entry.value.size, (const char *)entry.value.data);
    return MR_OK;
}

int main(int argc, char **argv)
{
    mr_client *client;
    enum mr_status status = mr_connect(NULL, NULL, &client);

    if (status == MR_OK)
        status = visit(client, argc > 1 ? argv[1] : "nobody");
    if (status != MR_OK)
        fprintf(stderr, "%s: %s\n", mr_status_name(status), mr_message(client));
    mr_close(client);
    return status != MR_OK;
}
