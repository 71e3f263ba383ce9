/* SPDX-License-Identifier: Apache-2.0 */
/* The device alone: writes by io_uring to a file that was written full before, O_DIRECT and durable, as the log's are.
 * What the log does beside them is what it costs. */
#include "bench/parts/parts.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILE_BYTES (UINT64_C(64) << 20)
#define PIECE (UINT64_C(1) << 20)
#define STREAM_DEPTH 4
#define DEPTH_MAX 64
#define SAMPLES_MAX (1 << 20)

struct device {
    struct io_uring ring;
    int file;
    uint64_t bytes; /* of the file */
    uint8_t *buffer;
    uint64_t size; /* of a write */
    uint64_t offset;
    uint64_t started[DEPTH_MAX]; /* when the one of this slot was started, or meant to be */
    uint64_t *samples, sample_count;
};

static int open_file(const struct parts_options *options, uint64_t bytes, int flags)
{
    char path[512];
    uint8_t *zeros = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    snprintf(path, sizeof(path), "%s/millrace-parts.%d", options->dir, (int)getpid());
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC | flags, 0600);
    if (file < 0 && errno == EINVAL)
        file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | flags, 0600);
    if (file < 0 || zeros == MAP_FAILED)
        die("cannot make %s: %s", path, strerror(errno));
    unlink(path);
    for (uint64_t offset = 0; offset < bytes; offset += PIECE)
        if (pwrite(file, zeros, PIECE, (off_t)offset) != (ssize_t)PIECE)
            die("cannot fill %s: %s", path, strerror(errno));
    if (fsync(file) != 0)
        die("cannot flush %s: %s", path, strerror(errno));
    munmap(zeros, PIECE);
    return file;
}

static void begin(struct device *device, const struct parts_options *options, uint64_t size)
{
    memset(device, 0, sizeof(*device));
    device->size = (size + 4095) / 4096 * 4096;
    device->bytes = FILE_BYTES;
    device->file = open_file(options, device->bytes, 0);
    device->buffer = mmap(NULL, device->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    device->samples = malloc(SAMPLES_MAX * sizeof(uint64_t));
    if (device->buffer == MAP_FAILED || device->samples == NULL)
        die("no memory");
    memset(device->buffer, 'x', device->size);
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    struct iovec whole = {.iov_base = device->buffer, .iov_len = device->size};
    int result = io_uring_queue_init_params(256, &device->ring, &params);
    if (result < 0)
        die("io_uring: %s", strerror(-result));
    result = io_uring_register_buffers(&device->ring, &whole, 1);
    if (result < 0)
        die("io_uring's buffers: %s", strerror(-result));
}

static void finish(struct device *device)
{
    io_uring_queue_exit(&device->ring);
    close(device->file);
    munmap(device->buffer, device->size);
    free(device->samples);
}

/* In the slot: a write behind the one before. `since`: when its time begins. */
static void start_write(struct device *device, unsigned slot, uint64_t since)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&device->ring);

    if (device->offset + device->size > device->bytes)
        device->offset = 0;
    io_uring_prep_write_fixed(sqe, device->file, device->buffer, (unsigned)device->size, device->offset, 0);
    sqe->rw_flags = RWF_DSYNC;
    io_uring_sqe_set_data64(sqe, slot);
    device->offset += device->size;
    device->started[slot] = since;
}

/* Also beyond a process that was stopped and goes on. */
static int wait_cqe(struct io_uring *ring, struct io_uring_cqe **cqe)
{
    int result;

    while ((result = io_uring_wait_cqe(ring, cqe)) == -EINTR)
        continue;
    return result;
}

/* Takes one completion, waiting for it; its slot. */
static unsigned end_write(struct device *device)
{
    struct io_uring_cqe *cqe;

    int result = wait_cqe(&device->ring, &cqe);
    if (result < 0 || cqe->res != (int)device->size)
        die("a write failed: %s", strerror(result < 0 ? -result : cqe->res < 0 ? -cqe->res : EIO));
    unsigned slot = (unsigned)io_uring_cqe_get_data64(cqe);
    io_uring_cqe_seen(&device->ring, cqe);
    if (device->sample_count < SAMPLES_MAX)
        device->samples[device->sample_count++] = now_ns() - device->started[slot];
    return slot;
}

static void report_latency(struct device *device)
{
    qsort(device->samples, device->sample_count, sizeof(uint64_t), by_number);
    uint64_t last = device->sample_count - 1;
    report("p50", (double)device->samples[last / 2] / 1e3, "us", 0);
    report("p99", (double)device->samples[last * 99 / 100] / 1e3, "us", 0);
    report("p99.9", (double)device->samples[last * 999 / 1000] / 1e3, "us", 0);
}

void part_bare_writes(const struct parts_options *options)
{
    struct device device;
    unsigned depth = options->depth;

    if (depth > DEPTH_MAX)
        die("--depth: at most %d in flight", DEPTH_MAX);
    run_on(options->cores[0]);
    begin(&device, options, options->size);
    uint64_t begun = now_ns(), end = begun + (uint64_t)(options->seconds * 1e9), done = 0;
    for (unsigned slot = 0; slot < depth; slot++)
        start_write(&device, slot, now_ns());
    io_uring_submit(&device.ring);
    while (now_ns() < end) {
        unsigned slot = end_write(&device);
        done++;
        start_write(&device, slot, now_ns());
        io_uring_submit(&device.ring);
    }
    double seconds = (double)(now_ns() - begun) / 1e9;
    for (unsigned slot = 0; slot < depth; slot++)
        (void)end_write(&device);
    report("writes", (double)done / seconds, "/s", 0);
    report("bytes", (double)done * (double)device.size / seconds / 1e6, "MB/s", 0);
    report_latency(&device);
    finish(&device);
}

/* Open loop: time counts from when a write was to start. One that finds all slots in flight waits for one. */
void part_bare_paced(const struct parts_options *options)
{
    struct device device;
    unsigned idle[DEPTH_MAX], idle_count = 0;

    run_on(options->cores[0]);
    begin(&device, options, options->size);
    for (unsigned slot = 0; slot < DEPTH_MAX; slot++)
        idle[idle_count++] = slot;
    uint64_t begun = now_ns(), end = begun + (uint64_t)(options->seconds * 1e9), number = 0;
    for (uint64_t now = begun; now < end; now = now_ns()) {
        uint64_t intended = begun + (uint64_t)((double)number * 1e9 / options->rate);
        if (intended <= now && idle_count > 0) {
            start_write(&device, idle[--idle_count], intended);
            io_uring_submit(&device.ring);
            number++;
        }
        struct io_uring_cqe *cqe;
        while (idle_count < DEPTH_MAX &&
               (io_uring_get_events(&device.ring), io_uring_peek_cqe(&device.ring, &cqe) == 0))
            idle[idle_count++] = end_write(&device);
    }
    while (idle_count < DEPTH_MAX)
        idle[idle_count++] = end_write(&device);
    report("writes", (double)number / options->seconds, "/s", 0);
    report_latency(&device);
    finish(&device);
}

double device_stream(const struct parts_options *options, bool write, uint64_t bytes)
{
    struct io_uring ring;
    uint8_t *buffer = mmap(NULL, STREAM_DEPTH * PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t pieces = bytes / PIECE, started = 0, done = 0;

    /* Reading needs something to read; writing goes to new blocks, as a snapshot's does. */
    int file = open_file(options, write ? 0 : bytes, 0);
    int result = io_uring_queue_init(STREAM_DEPTH, &ring, 0);
    if (buffer == MAP_FAILED || result < 0)
        die("cannot begin: %s", strerror(result < 0 ? -result : errno));
    memset(buffer, 'y', STREAM_DEPTH * PIECE);
    uint64_t begun = now_ns();
    while (done < pieces) {
        for (; started < pieces && started - done < STREAM_DEPTH; started++) {
            struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
            uint8_t *at = buffer + started % STREAM_DEPTH * PIECE;
            if (write)
                io_uring_prep_write(sqe, file, at, PIECE, started * PIECE);
            else
                io_uring_prep_read(sqe, file, at, PIECE, started * PIECE);
            io_uring_submit(&ring);
        }
        struct io_uring_cqe *cqe;
        if (wait_cqe(&ring, &cqe) < 0 || cqe->res != (int)PIECE)
            die("the device failed");
        io_uring_cqe_seen(&ring, cqe);
        done++;
    }
    if (write && fsync(file) != 0)
        die("cannot flush: %s", strerror(errno));
    double rate = (double)(pieces * PIECE) / ((double)(now_ns() - begun) / 1e9);
    io_uring_queue_exit(&ring);
    munmap(buffer, STREAM_DEPTH * PIECE);
    close(file);
    return rate;
}

void part_bare_stream(const struct parts_options *options)
{
    report("written", device_stream(options, true, options->bytes) / 1e6, "MB/s", 0);
    report("read", device_stream(options, false, options->bytes) / 1e6, "MB/s", 0);
}
