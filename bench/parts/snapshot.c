/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of a large map: what the fork costs the worker, how fast the child writes, how fast a start loads. Beside
 * the device's own reading and writing from end to end. */
#include "bench/parts/engine.h"

#include <stdio.h>
#include <string.h>

#ifdef MILLRACE_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

#include "engine/io/uring.h"
#include "engine/log/snapshot.h"

#define VALUE_BYTES 1000

static struct fsm *fill(uint64_t bytes)
{
    struct fsm *fsm = state_create();
    struct request_bytes request;
    uint8_t room[VALUE_BYTES + 64], value[VALUE_BYTES];
    uint64_t entries = bytes / (VALUE_BYTES + KEY_BYTES);

    memset(value, 'v', sizeof(value));
    state_prepare(fsm);
    for (uint64_t n = 1; n <= entries; n++) {
        request_operation(&request, 1, 3, n, "Put", put_payload(room, n, (struct slice){value, sizeof(value)}));
        state_apply(fsm, request.bytes, request.size);
        if (n % 4096 == 0 || n == entries) {
            request_keep_alive(&request, 1, n);
            state_apply(fsm, request.bytes, request.size);
        }
    }
    while (fsm_collect(fsm, 100000))
        ;
    return fsm;
}

static int nothing(void *context, struct io *io)
{
    (void)context, (void)io;
    return 0;
}

/* How long the process stands still when it forks. */
static double stall(struct io *io)
{
    struct io_completion completion;
    uint64_t begun = now_ns();

    int result = io->ops->child(io, nothing, NULL, 1);
    double stood = (double)(now_ns() - begun);
    if (result < 0)
        die("no child: %s", strerror(-result));
    while (io->ops->completions(io, &completion, 1) == 0)
        io->ops->sleep(io, NS_PER_SECOND / 100);
    return stood;
}

static uint64_t write_snapshot(struct fsm *fsm, const struct snapshot_place *place)
{
    struct snapshot_point point = {.index = fsm_index(fsm), .time = fsm_time(fsm), .segment = 1};
    struct mr_error error;
    uint64_t bytes;
    struct snapshot_writer *writer = snapshot_begin(place, &point, 1, &error);

    if (writer == NULL)
        die("%s", error.text);
    fsm_write_snapshot(fsm, snapshot_write, writer);
    snapshot_next_section(writer);
    fsm_write_extra(fsm, snapshot_write, writer);
    if (snapshot_commit(writer, NULL, NULL, &bytes, &error) != 0)
        die("%s", error.text);
    return bytes;
}

static void load_snapshot(struct fsm *fsm, const struct snapshot_place *place)
{
    struct snapshot_list list;
    struct snapshot_content content;
    struct mr_error error;

    if (snapshot_find(place, &list, &error) != 0 || list.count == 0)
        die("the snapshot is gone");
    if (snapshot_load_begin(place, &list.snapshots[0], &content, NULL, NULL, &error) != 0)
        die("%s", error.text);
    struct fsm_source source = {.need = snapshot_need, .passed = snapshot_forget, .context = &content};
    if (fsm_restore_from(fsm, (struct slice){content.sections[0], content.sizes[0]},
                         (struct slice){content.sections[1], content.sizes[1]}, &source, &error) != 0)
        die("%s", error.text);
    snapshot_unload(&content);
    snapshot_list_free(&list);
}

/* A worker that loads takes its memory from the kernel, not from what its own allocator has left over. */
static void give_back(void)
{
#ifdef MILLRACE_JEMALLOC
    char all[32];
    snprintf(all, sizeof(all), "arena.%u.purge", (unsigned)MALLCTL_ARENAS_ALL);
    if (mallctl(all, NULL, NULL, NULL, 0) != 0)
        die("the allocator cannot give its memory back");
#endif
}

void part_snapshot(const struct parts_options *options)
{
    run_on(options->cores[0]);
    const char *path = make_directory(options);
    struct io *io = new_io();
    struct fsm *fsm = fill(options->bytes);
    struct snapshot_place place = {.io = io, .path = path, .partition = 1, .secret = 42};
    double written = device_stream(options, true, options->bytes) / 1e6;
    double read = device_stream(options, false, options->bytes) / 1e6;

    report("stall at the fork", stall(io) / 1e6, "ms", 0);
    uint64_t begun = now_ns();
    uint64_t bytes = write_snapshot(fsm, &place);
    report("written", (double)bytes / ((double)(now_ns() - begun) / 1e9) / 1e6, "MB/s", written);
    fsm_destroy(fsm);
    give_back();
    fsm = state_create();
    begun = now_ns();
    load_snapshot(fsm, &place);
    report("loaded", (double)bytes / ((double)(now_ns() - begun) / 1e9) / 1e6, "MB/s", read);
    fsm_destroy(fsm);
    uring_destroy(io);
    remove_directory();
}
