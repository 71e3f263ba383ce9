/* SPDX-License-Identifier: Apache-2.0 */
/* Listens to a map on one handle while another writes to it. Events are pulled: what comes while nobody pulls is kept,
 * and none is missed or given twice, whatever dies meanwhile. */
#include <stdio.h>

#include <millrace/map.h>

static const char *const types[] = {"listening", "insert", "update", "remove", "replay"};

static int failed(const char *what, mr_client *client)
{
    fprintf(stderr, "%s: %s\n", what, mr_message(client));
    return 1;
}

static enum mr_status write_some(mr_map *map)
{
    enum mr_status status;

    if ((status = mr_map_put(map, mr_text("a"), mr_text("1"), NULL, NULL)) != MR_OK ||
        (status = mr_map_put(map, mr_text("a"), mr_text("2"), NULL, NULL)) != MR_OK)
        return status;
    return mr_map_remove(map, mr_text("a"), 0, NULL);
}

static int listen_and_write(mr_client *client, mr_client *writer)
{
    struct mr_event event;
    mr_stream *stream;
    mr_map *map;
    mr_map *same;

    if (mr_map_open(client, "listened", &map) != MR_OK || mr_map_events(map, mr_text(""), true, &stream) != MR_OK)
        return failed("cannot listen", client);
    if (mr_map_open(writer, "listened", &same) != MR_OK)
        return failed("cannot open the map", writer);
    do {
        if (mr_stream_next(stream, MR_FOR_EVER, &event) != MR_OK)
            return failed("the stream has ended", client);
        if (event.type == MR_LISTENING && write_some(same) != MR_OK)
            return failed("cannot write", writer);
        printf("%s %.*s %.*s\n", types[event.type], (int)event.entry.key.size, (const char *)event.entry.key.data,
               (int)event.entry.value.size, (const char *)event.entry.value.data);
    } while (event.type != MR_REMOVE);
    mr_stream_close(stream);
    return 0;
}

int main(void)
{
    mr_client *client;
    mr_client *writer = NULL;
    int result;

    if (mr_connect(NULL, NULL, &client) != MR_OK)
        result = failed("cannot connect", client);
    else if (mr_connect(NULL, NULL, &writer) != MR_OK)
        result = failed("cannot connect", writer);
    else
        result = listen_and_write(client, writer);
    mr_close(writer);
    mr_close(client);
    return result;
}
