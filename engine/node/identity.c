/* SPDX-License-Identifier: Apache-2.0 */
/* DIR/identity says what a data directory is. 128 bytes, all numbers little-endian, never changed after it was made:
 *
 *     0  u64      "MILLRACE", the bytes in this order
 *     8  u32      format version of the whole directory: 2. It stands for what the files look like and for what a log
 *                  means: it is raised, too, when the same entries would give another state than before
 *    12  u32      partitions
 *    16  u8[16]   id: random, shown to clients
 *    32  u64      secret: random, never shown; seeds the checksums of the log
 *    40  u64      hash seed: random, never shown; seeds hash tables
 *    48  u32      1: made for --durability memory, 0: on disk
 *    52  u32      0
 *    56  u64      limit of a session's unacknowledged outputs, bytes
 *    64  u8[56]   0
 *   120  u64      XXH3-64 of bytes 0 to 119, seed 0
 *
 * A directory is made in this order: the partitions' folders, channel-ids, the directory synced, and the one above it,
 * in which it may have been made just now by whomever; at last the identity.
 * So a directory with an identity is complete, and one without may be made (again) as long as no partition's folder has
 * anything in it. In `memory` the identity is there to refuse the directory on disk; id, secret and hash seed are made
 * anew at each start, since nothing of before is left. */
#include "engine/node/identity.h"

#include "engine/node/atomic_file.h"
#include "engine/node/channel_ids.h"
#include "engine/node/directory_lock.h"
#include "engine/node/values.h"
#include "ipc/sys.h"

#include <millrace/limits.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define FILE_NAME "identity"
#define FORMAT_VERSION 2
#define FOLDER_FORMAT "partition-%04" PRIu32

static const char magic[8] = {'M', 'I', 'L', 'L', 'R', 'A', 'C', 'E'};

struct file {
    char magic[8];
    uint32_t version;
    uint32_t partitions;
    uint8_t id[16];
    uint64_t secret;
    uint64_t hash_seed;
    uint32_t memory;
    uint32_t zero;
    uint64_t session_output_limit;
    uint8_t zeros[56];
    uint64_t checksum;
};
_Static_assert(sizeof(struct file) == 128 && offsetof(struct file, checksum) == 120, "the format above");

uint64_t identity_lock_wait = 10 * MR_SECOND;

void identity_partition_path(const char *dir, uint32_t partition, char *path, size_t size)
{
    snprintf(path, size, "%s/" FOLDER_FORMAT, dir, partition);
}

static int make_random(struct identity *identity, struct mr_error *error)
{
    uint8_t bytes[32];
    size_t used = 0;

    while (used < sizeof(bytes)) {
        ssize_t got = sys_getrandom(bytes + used, sizeof(bytes) - used, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_system(error, errno, "cannot get random bytes for the directory's identity");
        used += (size_t)got;
    }
    memcpy(identity->id, bytes, 16);
    memcpy(&identity->secret, bytes + 16, 8);
    memcpy(&identity->hash_seed, bytes + 24, 8);
    return 0;
}

static int write_identity(int directory, const char *dir, const struct identity *identity, struct mr_error *error)
{
    struct file file = {.version = FORMAT_VERSION,
                        .partitions = identity->partitions,
                        .secret = identity->secret,
                        .hash_seed = identity->hash_seed,
                        .memory = identity->memory,
                        .session_output_limit = identity->session_output_limit};

    memcpy(file.magic, magic, sizeof(magic));
    memcpy(file.id, identity->id, sizeof(file.id));
    file.checksum = XXH3_64bits(&file, offsetof(struct file, checksum));
    return atomic_file_write(directory, dir, FILE_NAME, &file, sizeof(file), error);
}

/* 1: there is none. */
static int read_identity(int directory, const char *dir, struct identity *identity, struct mr_error *error)
{
    struct file file;
    struct mr_error why;
    long size = atomic_file_read(directory, dir, FILE_NAME, &file, sizeof(file), &why);

    if (size < 0 && why.code == ENOENT)
        return 1;
    if (size < 0) {
        *error = why;
        return -1;
    }
    if (size >= 12 && memcmp(file.magic, magic, sizeof(magic)) == 0 && file.version != FORMAT_VERSION)
        return error_set(error,
                         "%s/identity: the directory has format version %" PRIu32 ", this node reads version %d; "
                         "use the node that made it",
                         dir, file.version, FORMAT_VERSION);
    if (size != sizeof(file) || memcmp(file.magic, magic, sizeof(magic)) != 0 ||
        file.checksum != XXH3_64bits(&file, offsetof(struct file, checksum)) || file.partitions < 1 ||
        file.partitions > MR_PARTITIONS_MAX || file.memory > 1)
        return error_set(error, "%s/identity is damaged: %s; restore the directory from a copy", dir,
                         size != sizeof(file)                            ? "it has another size than 128 bytes"
                         : memcmp(file.magic, magic, sizeof(magic)) != 0 ? "it does not begin with MILLRACE"
                                                                         : "its checksum does not match");
    *identity = (struct identity){.secret = file.secret,
                                  .hash_seed = file.hash_seed,
                                  .partitions = file.partitions,
                                  .memory = file.memory == 1,
                                  .session_output_limit = file.session_output_limit};
    memcpy(identity->id, file.id, sizeof(identity->id));
    return 0;
}

static int check_against(const struct identity *identity, const struct options *options, struct mr_error *error)
{
    char given[32], made[32];

    if (identity->memory != (options->durability == DURABILITY_MEMORY))
        return error_set(error, "--durability %s: the directory %s was made %s; give another --dir, or --durability %s",
                         options->durability == DURABILITY_MEMORY ? "memory"
                         : options->durability == DURABILITY_SYNC ? "sync"
                                                                  : "async",
                         options->dir, identity->memory ? "for memory" : "to be kept on disk (sync or async)",
                         identity->memory ? "memory" : "sync or async");
    if (options->partitions_given && options->partitions != identity->partitions)
        return error_set(error, "--partitions %" PRIu32 ": the directory %s was made with %" PRIu32 " partition%s",
                         options->partitions, options->dir, identity->partitions, identity->partitions == 1 ? "" : "s");
    if (options->session_outputs_given && options->session_outputs != identity->session_output_limit)
        return error_set(error, "--session-outputs %s: the directory %s was made with %s",
                         value_write_size(given, options->session_outputs), options->dir,
                         value_write_size(made, identity->session_output_limit));
    return 0;
}

/* Whether a partition's folder is there, and that it has nothing in it. */
static int check_unused(int directory, const char *dir, const char *name, struct mr_error *error)
{
    int fd = sys_openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    struct dirent *entry;
    bool used = false;

    if (fd < 0)
        return error_system(error, errno, "cannot open %s/%s", dir, name);
    DIR *listing = sys_fdopendir(fd);
    if (listing == NULL) {
        error_system(error, errno, "cannot list %s/%s", dir, name);
        (void)sys_close(fd);
        return -1;
    }
    while ((entry = sys_readdir(listing)) != NULL)
        used |= strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    int code = errno;
    (void)sys_closedir(listing); /* was only read */
    if (code != 0 && !used)
        return error_system(error, code, "cannot list %s/%s", dir, name);
    if (used)
        return error_set(error,
                         "%s/identity is missing, but %s/%s has data in it; restore the directory from a copy, or give "
                         "another --dir",
                         dir, dir, name);
    return 0;
}

static int make_folders(int directory, const char *dir, uint32_t partitions, struct mr_error *error)
{
    for (uint32_t partition = 1; partition <= partitions; partition++) {
        char name[32];
        snprintf(name, sizeof(name), FOLDER_FORMAT, partition);
        if (sys_mkdirat(directory, name, 0700) == 0)
            continue;
        if (errno != EEXIST)
            return error_system(error, errno, "cannot make the folder %s/%s", dir, name);
        if (check_unused(directory, dir, name, error) != 0)
            return -1;
    }
    return 0;
}

/* A power cut may not take DIR back with all that is in it. `made`: just now. Where somebody else made it, in a place
 * that this user may not read, it is left to him. */
static int sync_above(int directory, const char *dir, bool made, struct mr_error *error)
{
    int parent = sys_openat(directory, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

    if (parent < 0 && errno == EACCES && !made)
        return 0;
    if (parent >= 0 && sys_fsync(parent) == 0) {
        (void)sys_close(parent); /* was only synced */
        return 0;
    }
    error_system(error, errno, "--dir %s: cannot sync the directory above", dir);
    if (parent >= 0)
        (void)sys_close(parent);
    return -1;
}

static int make_identity(int directory, bool made, const struct options *options, struct identity *identity,
                         struct mr_error *error)
{
    const char *dir = options->dir;

    *identity = (struct identity){.partitions = options->partitions,
                                  .memory = options->durability == DURABILITY_MEMORY,
                                  .session_output_limit = options->session_outputs};
    if (make_random(identity, error) != 0)
        return -1;
    if (!identity->memory) {
        if (make_folders(directory, dir, identity->partitions, error) != 0 ||
            channel_ids_create(directory, dir, error) != 0)
            return -1;
        if (sys_fsync(directory) != 0)
            return error_system(error, errno, "cannot sync the directory %s", dir);
    }
    if (sync_above(directory, dir, made, error) != 0)
        return -1;
    return write_identity(directory, dir, identity, error);
}

/* A folder that is gone took its partition's log with it: never made anew in silence. */
static int check_folders(int directory, const char *dir, uint32_t partitions, struct mr_error *error)
{
    for (uint32_t partition = 1; partition <= partitions; partition++) {
        char name[32];
        struct stat status;
        snprintf(name, sizeof(name), FOLDER_FORMAT, partition);
        if (sys_fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
            return error_system(error, errno, "the folder of partition %" PRIu32 ", %s/%s, cannot be looked at",
                                partition, dir, name);
        if (!S_ISDIR(status.st_mode))
            return error_set(error, "%s/%s is not a folder", dir, name);
    }
    return 0;
}

/* With the lock held. */
static int settle(int directory, bool made, const struct options *options, struct identity *identity,
                  struct mr_error *error)
{
    int read = read_identity(directory, options->dir, identity, error);

    if (read < 0)
        return -1;
    if (read == 1)
        return make_identity(directory, made, options, identity, error);
    if (check_against(identity, options, error) != 0)
        return -1;
    if (identity->memory)
        return make_random(identity, error);
    return check_folders(directory, options->dir, identity->partitions, error);
}

/* What clients may not do over the socket they must not be able to do to the files. Said, not changed: the wrong DIR
 * may have been given. */
static int check_private(int directory, const char *dir, struct mr_error *error)
{
    struct stat status;

    if (sys_fstat(directory, &status) != 0)
        return error_system(error, errno, "--dir %s: cannot look at the data directory", dir);
    if ((status.st_mode & 0077) != 0)
        return error_set(error,
                         "--dir %s: other users may use the data directory (mode %04o); `chmod 700 %s`, and give "
                         "a --socket elsewhere if they are to connect",
                         dir, (unsigned)(status.st_mode & 07777), dir);
    /* Root could; but its workers, which have no rights beyond their user's, could not, nor would that user later have
     * a use for files of root's among his. */
    if (status.st_uid != geteuid())
        return error_set(error,
                         "--dir %s: the data directory belongs to user %u, and this node would be user %u's; give "
                         "--user %u, or the directory with all in it to the other",
                         dir, (unsigned)status.st_uid, (unsigned)geteuid(), (unsigned)status.st_uid);
    return 0;
}

/* Makes DIR if its parent exists. */
static int open_directory(const char *dir, bool *made, struct mr_error *error)
{
    *made = sys_mkdir(dir, 0700) == 0;
    if (!*made && errno != EEXIST)
        return error_system(error, errno, "--dir %s: cannot make the data directory", dir);
    int directory = sys_open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (directory < 0)
        return error_system(error, errno, "--dir %s: cannot open the data directory", dir);
    if (*made || check_private(directory, dir, error) == 0)
        return directory;
    (void)sys_close(directory); /* was only looked at */
    return -1;
}

int identity_open(const struct options *options, struct identity *identity, int *lock_fd, struct mr_error *error)
{
    bool made;
    int directory = open_directory(options->dir, &made, error);

    *lock_fd = -1;
    if (directory < 0)
        return -1;
    int lock = directory_lock_take(directory, options->dir, identity_lock_wait, error);
    if (lock >= 0 && settle(directory, made, options, identity, error) != 0) {
        (void)sys_close(lock); /* lets go of the lock, whatever it says */
        lock = -1;
    }
    (void)sys_close(directory); /* synced where it was written */
    *lock_fd = lock;
    return lock >= 0 ? 0 : -1;
}

/* What a node would say to a directory without an identity. */
static int say_missing(int directory, const char *dir, struct mr_error *error)
{
    char name[32];

    snprintf(name, sizeof(name), FOLDER_FORMAT, 1);
    if (check_unused(directory, dir, name, error) != 0 && error->code == 0)
        return -1;
    return error_system(error, ENOENT, "%s is no data directory: cannot open its identity", dir);
}

int identity_look(const char *dir, bool lock, struct identity *identity, int *lock_fd, struct mr_error *error)
{
    struct channel_ids ids;
    int directory = sys_open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

    *lock_fd = -1;
    if (directory < 0)
        return error_system(error, errno, "cannot open the data directory %s", dir);
    int result = lock ? directory_lock_share(directory, dir, lock_fd, error) : 0;
    if (result == 0) {
        result = read_identity(directory, dir, identity, error);
        if (result == 1)
            result = say_missing(directory, dir, error);
        else if (result == 0 && !identity->memory)
            result = channel_ids_open(&ids, directory, dir, error);
    }
    (void)sys_close(directory); /* was only read */
    if (result != 0 && *lock_fd >= 0) {
        (void)sys_close(*lock_fd); /* lets go of the lock, whatever it says */
        *lock_fd = -1;
    }
    return result;
}
