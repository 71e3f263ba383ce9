/* SPDX-License-Identifier: Apache-2.0 */
/* Makes, seals, maps and unmaps a channel's memory: see channel.h for its layout. Knows nothing of frames, and of
 * sockets only that descriptors come from somewhere.
 *
 * Why the seals: a memfd's size and pages belong to everyone who holds its descriptor. Without F_SEAL_SHRINK a client
 * could cut it off and the worker would die of SIGBUS at its next look; F_SEAL_FUTURE_WRITE also ends write(), new
 * writable mappings and, with them, the punching of holes, which would turn each touch of a page by the worker into a
 * page fault. It leaves alone the mappings that are there: so it is set when both ends have theirs. */
#include "ipc/channel.h"

#include "ipc/sys.h"

#include <millrace/limits.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALL_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

uint64_t channel_head_bytes(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t channel_memory_bytes(uint64_t ring_bytes)
{
    return channel_head_bytes() + 2 * ring_bytes;
}

static int check_ring_bytes(uint64_t ring_bytes, struct mr_error *error)
{
    if (ring_bytes < channel_head_bytes() || ring_bytes > MR_RING_BYTES_MAX || (ring_bytes & (ring_bytes - 1)) != 0)
        return error_set(error, "a ring cannot have %" PRIu64 " bytes: a power of two from %" PRIu64 " to %" PRIu64,
                         ring_bytes, channel_head_bytes(), (uint64_t)MR_RING_BYTES_MAX);
    return 0;
}

/* Where a failing munmap() could only be our own mistake: an address or size that we did not get from mmap(). A kernel
 * that is out of memory for splitting areas does not refuse to unmap whole ones. */
static void unmap(void *address, uint64_t size)
{
    if (address != NULL)
        (void)sys_munmap(address, size);
}

/* Maps `size` bytes of the file from `offset` on twice in a row. NULL with *error. */
static uint8_t *map_twice(int fd, uint64_t offset, uint64_t size, struct mr_error *error)
{
    /* Addresses first, so that nothing else can come to stand where the second half goes. */
    uint8_t *data = sys_mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) {
        error_system(error, errno, "cannot reserve %" PRIu64 " bytes of addresses for a ring", 2 * size);
        return NULL;
    }
    for (int half = 0; half < 2; half++) {
        void *at = sys_mmap(data + (uint64_t)half * size, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                            (off_t)offset);
        if (at == MAP_FAILED) {
            error_system(error, errno, "cannot map a ring of %" PRIu64 " bytes", size);
            unmap(data, 2 * size);
            return NULL;
        }
    }
    return data;
}

/* Maps the page and both rings; what has been mapped is unmapped again if one cannot be. */
static int map_all(struct channel *channel, int fd, struct mr_error *error)
{
    uint64_t head = channel_head_bytes();
    void *page = sys_mmap(NULL, head, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (page == MAP_FAILED)
        return error_system(error, errno, "cannot map a channel's first page");
    channel->page = page;
    channel->request_data = map_twice(fd, head, channel->ring_bytes, error);
    if (channel->request_data != NULL)
        channel->response_data = map_twice(fd, head + channel->ring_bytes, channel->ring_bytes, error);
    if (channel->response_data != NULL)
        return 0;
    unmap(channel->request_data, 2 * channel->ring_bytes);
    unmap(channel->page, head);
    channel->page = NULL;
    channel->request_data = NULL;
    return -1;
}

int channel_create(struct channel *channel, uint32_t partition, uint64_t channel_id, uint64_t ring_bytes,
                   int client_wake_fd, struct mr_error *error)
{
    *channel = (struct channel){.partition = partition,
                                .channel_id = channel_id,
                                .ring_bytes = ring_bytes,
                                .memory_fd = -1,
                                .node_wake_fd = -1,
                                .client_wake_fd = client_wake_fd};
    if (check_ring_bytes(ring_bytes, error) != 0)
        return -1;
    channel->memory_fd = sys_memfd_create("millrace-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (channel->memory_fd < 0) {
        error_system(error, errno, "cannot make shared memory for a channel");
    } else if (sys_ftruncate(channel->memory_fd, (off_t)channel_memory_bytes(ring_bytes)) != 0) {
        error_system(error, errno, "cannot size a channel's shared memory to %" PRIu64 " bytes",
                     channel_memory_bytes(ring_bytes));
    } else if (sys_fcntl(channel->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
        error_system(error, errno, "cannot seal the size of a channel's memory");
    } else if ((channel->node_wake_fd = sys_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) {
        error_system(error, errno, "cannot make an eventfd for a channel");
    } else if (map_all(channel, channel->memory_fd, error) == 0) {
        channel->page->magic = CHANNEL_MAGIC;
        channel->page->format = CHANNEL_FORMAT;
        channel->page->partition = partition;
        channel->page->channel_id = channel_id;
        channel->page->ring_bytes = ring_bytes;
        return 0;
    }
    channel_unmap(channel);
    return -1;
}

int channel_seal(struct channel *channel, struct mr_error *error)
{
    int fd = channel->memory_fd;

    if (sys_fcntl(fd, F_ADD_SEALS, ALL_SEALS) != 0)
        return error_system(error, errno, "cannot seal the memory of channel %" PRIu64, channel->channel_id);
    int seals = sys_fcntl(fd, F_GET_SEALS, 0);
    if (seals < 0)
        return error_system(error, errno, "cannot read the seals of channel %" PRIu64, channel->channel_id);
    if ((seals & ALL_SEALS) != ALL_SEALS)
        return error_set(error, "the kernel put seals 0x%x on channel %" PRIu64 ", not 0x%x", (unsigned)seals,
                         channel->channel_id, (unsigned)ALL_SEALS);
    /* That they are there is one thing, that they hold is what counts. */
    void *page = sys_mmap(NULL, channel_head_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) {
        unmap(page, channel_head_bytes());
        return error_set(error,
                         "this kernel lets a sealed channel be mapped for writing; Linux 5.1 or later is needed");
    }
    if (errno != EPERM)
        return error_system(error, errno, "cannot see whether the seals of channel %" PRIu64 " hold",
                            channel->channel_id);
    return 0;
}

/* The page may be anybody's: each of its words is read once. */
static int check_page(const struct channel *channel, struct mr_error *error)
{
    const volatile struct channel_page *page = channel->page;
    uint64_t magic = page->magic;
    uint32_t format = page->format;
    uint32_t partition = page->partition;
    uint64_t id = page->channel_id;
    uint64_t ring_bytes = page->ring_bytes;

    if (magic != CHANNEL_MAGIC)
        return error_set(error, "what the node sent is not a channel: it begins with 0x%016" PRIx64, magic);
    if (format != CHANNEL_FORMAT)
        return error_set(error,
                         "the node's channels have format %" PRIu32 ", this library knows %d: use the library that "
                         "belongs to the node",
                         format, CHANNEL_FORMAT);
    if (partition != channel->partition || id != channel->channel_id || ring_bytes != channel->ring_bytes)
        return error_set(error,
                         "expected channel %" PRIu64 " of partition %" PRIu32 " with rings of %" PRIu64
                         " bytes, got channel %" PRIu64 " of partition %" PRIu32 " with %" PRIu64,
                         channel->channel_id, channel->partition, channel->ring_bytes, id, partition, ring_bytes);
    return 0;
}

int channel_map(struct channel *channel, int memory_fd, int node_wake_fd, int client_wake_fd, uint32_t partition,
                uint64_t channel_id, uint64_t ring_bytes, struct mr_error *error)
{
    struct stat status;

    *channel = (struct channel){.partition = partition,
                                .channel_id = channel_id,
                                .ring_bytes = ring_bytes,
                                .memory_fd = -1,
                                .node_wake_fd = -1,
                                .client_wake_fd = -1};
    if (check_ring_bytes(ring_bytes, error) != 0)
        return -1;
    if (sys_fstat(memory_fd, &status) != 0)
        return error_system(error, errno, "cannot look at the memory of channel %" PRIu64, channel_id);
    if (!S_ISREG(status.st_mode) || status.st_size != (off_t)channel_memory_bytes(ring_bytes))
        return error_set(error, "the memory of channel %" PRIu64 " has %" PRIi64 " bytes, not %" PRIu64, channel_id,
                         (int64_t)status.st_size, channel_memory_bytes(ring_bytes));
    if (map_all(channel, memory_fd, error) != 0)
        return -1;
    if (check_page(channel, error) != 0) {
        channel_unmap(channel);
        return -1;
    }
    channel->memory_fd = memory_fd;
    channel->node_wake_fd = node_wake_fd;
    channel->client_wake_fd = client_wake_fd;
    return 0;
}

int channel_dont_fork(struct channel *channel, struct mr_error *error)
{
    if (sys_madvise(channel->page, channel_head_bytes(), MADV_DONTFORK) == 0 &&
        sys_madvise(channel->request_data, 2 * channel->ring_bytes, MADV_DONTFORK) == 0 &&
        sys_madvise(channel->response_data, 2 * channel->ring_bytes, MADV_DONTFORK) == 0)
        return 0;
    return error_system(error, errno, "cannot keep channel %" PRIu64 " out of forked children", channel->channel_id);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)sys_close(*fd); /* an eventfd or a memfd: nothing is lost by what it says */
    *fd = -1;
}

void channel_unmap(struct channel *channel)
{
    if (channel->page == NULL && channel->memory_fd == 0 && channel->node_wake_fd == 0)
        return; /* zeroed, never made: two descriptors are never both 0 */
    unmap(channel->page, channel_head_bytes());
    unmap(channel->request_data, 2 * channel->ring_bytes);
    unmap(channel->response_data, 2 * channel->ring_bytes);
    channel->page = NULL;
    channel->request_data = NULL;
    channel->response_data = NULL;
    close_fd(&channel->memory_fd);
    close_fd(&channel->node_wake_fd);
}
