/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the simulated io share: fake_io.c (processes and their calls), fake_operation.c (what is in
 * flight), fake_child.c (children of processes), fake_disk.c (the medium), fake_machine.c (clock, faults, files behind
 * everybody's back). Nobody else includes it. */
#ifndef TESTS_SUPPORT_FAKE_DISK_H
#define TESTS_SUPPORT_FAKE_DISK_H

#include "tests/support/fake_io.h"

enum {
    SECTOR = 512,
    BLOCK = 4096,
    NAME_SIZE = 128,
    FIRST_DESCRIPTOR = 1000,
    MAX_DESCRIPTORS = 256,
    MAX_WATCHES = 4096
};

/* A file's content: as reads see it, and as a power cut would leave it if nothing more became durable by chance. */
struct inode {
    struct inode *next; /* all of the machine's */
    uint8_t *current;   /* capacity bytes; zeros behind what was written */
    uint8_t *durable;   /* the same */
    uint64_t *dirty;    /* per sector: the write that it waits to be flushed for; 0: none */
    uint8_t *taken;     /* per block: it takes space */
    uint64_t capacity;  /* bytes, a multiple of BLOCK */
    uint64_t size;
    uint64_t durable_size;
    unsigned syncs;            /* in flight */
    struct description *owner; /* holds the lock */
    bool reachable;            /* mark of the collector */
    bool borrowed;             /* `current` is another machine's, only read; the rest of the content is missing */
};

struct entry {
    char name[NAME_SIZE];
    struct inode *inode;
};

struct entries {
    struct entry *list;
    unsigned count;
};

/* Something done to a directory that is not synced: `removed` goes, `added` stands for the inode; either may be "". */
struct change {
    char removed[NAME_SIZE];
    char added[NAME_SIZE];
    struct inode *inode;
};

struct directory {
    struct directory *next;
    char path[256];
    struct entries current;
    struct entries durable;
    struct change *changes; /* since the last sync, in order */
    unsigned change_count;
};

/* An open file or directory, as the kernel keeps it: lives while a descriptor or a write in flight refers to it. */
struct description {
    struct description *next; /* all of the machine's */
    struct inode *inode;      /* one of the two */
    struct directory *directory;
    char name[NAME_SIZE];
    unsigned flags; /* enum io_open_flags */
    bool direct;
    unsigned references;
    unsigned open; /* of those, descriptors of processes that live */
};

struct operation {
    struct operation *next;
    enum fake_call call;
    struct description *file; /* NULL: wake, child */
    const void *buffer;       /* the caller's */
    uint8_t *data;            /* what it held when the write began */
    uint64_t size, offset, token;
    bool durable;
    bool handed_over;
    int event;
    struct fake_child *child; /* FAKE_CHILD: it died with its process, in the middle of a call */
    int fault;                /* it will fail with this errno; 0: not by decree */
    uint64_t due;             /* monotonic time */
    uint64_t sequence;        /* machine.writes when it began */
};

struct fault {
    enum fake_call call;
    char name[NAME_SIZE]; /* "": any */
    uint64_t skip, count;
    int error;
};

struct watch {
    int descriptor;
    uint64_t token;
};

struct event_count {
    int event;
    uint64_t wakes;
};

struct fake_io {
    struct io io; /* first: what the user holds */
    struct fake_machine *machine;
    struct fake_io *next;
    bool dead;
    struct description *files[MAX_DESCRIPTORS];
    struct operation *operations; /* in flight, oldest first */
    uint64_t last_due;            /* of the operation begun last */
    struct io_completion *ready;  /* a queue: taken from `ready_taken` on */
    unsigned ready_count, ready_taken, ready_capacity;
    struct watch *watches;
    unsigned watch_count;
    struct event_count *events;
    unsigned event_count;
    void *registered; /* the region of buffers; NULL: none */
    struct fake_child *child;
    bool child_told;       /* its completion waits in `ready` */
    uint64_t child_token;  /* of that */
    bool job_runs;         /* this process must not be called: its child's job is being noted down */
    struct fake_io *owner; /* of a child's descriptors: the process; NULL: this is no child */
    bool ghost;            /* a child's: it is dead, but for one call that nobody hears of */
};

/* One call of a child's job, to be made again when its time has come. */
struct child_call {
    unsigned call; /* enum fake_call, or CALL_CLOSE */
    int file;
    unsigned flags;
    char *name, *to;
    uint8_t *data;
    uint64_t size, offset;
    int64_t result; /* as the job saw it */
};
enum { CALL_CLOSE = FAKE_CALLS };

/* A name that a child has made, in a directory that it has not synced since. */
struct child_name {
    int directory;
    char *name;
};

struct fake_child {
    struct fake_io *process; /* its descriptors; not in the machine's list */
    struct child_call *calls;
    unsigned count, done;
    struct child_name *names;
    unsigned name_count;
    bool failed;
    int32_t result;
    uint64_t token;
    uint64_t due; /* of the next call, or of the end; monotonic time */
};

enum { MAX_FAULTS = 32 };

struct fake_machine {
    struct fake_config config;
    struct fake_counts counts;
    uint64_t random;
    uint64_t monotonic;
    uint64_t wall_offset; /* wall = monotonic + this */
    uint64_t writes;      /* that have taken effect; numbers them */
    struct inode *inodes;
    struct directory *directories;
    struct description *descriptions;
    struct operation *orphans; /* writes and syncs of dead processes */
    struct fault faults[MAX_FAULTS];
    unsigned fault_count;
    struct fake_io *processes;
    bool child_calls; /* the call that on_call is for is a child's */
};

_Noreturn void fake_misuse(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *fake_allocate(size_t size); /* zeroed; never NULL */

struct directory *disk_directory(const struct fake_machine *machine, const char *path);
struct inode *disk_find(const struct entries *entries, const char *name);
struct inode *disk_new_inode(struct fake_machine *machine);
/* Changes the directory's current entries and notes that for the next sync. */
void disk_change(struct directory *directory, const char *removed, const char *added, struct inode *inode);
void disk_sync_directory(struct directory *directory);
/* Writes sectors and says how many bytes found space: less than `size` means that the disk is full. */
uint64_t disk_write(struct fake_machine *machine, struct inode *inode, const uint8_t *data, uint64_t size,
                    uint64_t offset, bool durable);
/* Writes an unpredictable part of it, by sectors; perhaps nothing, perhaps all. */
void disk_write_torn(struct fake_machine *machine, struct inode *inode, const uint8_t *data, uint64_t size,
                     uint64_t offset, bool durable);
/* Gives space to a range and lengthens the file; false: there is none. */
bool disk_reserve(struct fake_machine *machine, struct inode *inode, uint64_t size);
/* Makes durable what was written up to write number `sequence`. */
void disk_flush(struct inode *inode, uint64_t sequence);
/* Some of what waits to be flushed never will be. */
void disk_flush_failed(struct fake_machine *machine, struct inode *inode);
/* Lets go of what no name and nobody refers to. */
void disk_collect(struct fake_machine *machine);
/* Only what is durable, or is so by chance, remains. */
void disk_power_cut(struct fake_machine *machine);
struct description *disk_describe(struct fake_machine *machine, struct inode *inode, struct directory *directory,
                                  const char *name);
/* One reference less; with the last one its lock falls. */
void disk_release(struct fake_machine *machine, struct description *description);
/* The errno with which this call is to fail; 0: it is not. Counts it. */
int fake_fault(struct fake_machine *machine, enum fake_call call, const char *name);

/* A machine with the same files as they are read now, to be read and changed while this one stays as it is; without
 * faults, limits and hooks. fake_machine_destroy() before this one goes on. */
struct fake_machine *machine_view(const struct fake_machine *machine);
/* The counterpart of an inode in a copy of its machine. */
struct inode *machine_counterpart(const struct fake_machine *from, const struct fake_machine *to,
                                  const struct inode *inode);

/* fake_io.c */
/* What every call does first. Returns the errno with which it is to fail. */
int fake_enter(struct fake_io *process, enum fake_call call, const char *name);
void fake_close_all(struct fake_io *process);

/* fake_child.c */
int child_begin(struct io *io, int (*job)(void *context, struct io *io), void *context, uint64_t token);
void child_kill(struct io *io);
void child_give_up(struct io *io);
void child_run_due(struct fake_io *process);
/* Its process dies. What of it may still happen, or NULL. */
struct operation *child_orphan(struct fake_io *process);
/* The call in which it was happens, or not. Freed. */
void child_land(struct fake_machine *machine, struct fake_child *child, enum fake_fate fate);
void child_free(struct fake_child *child);

/* fake_operation.c */
uint64_t operation_due(struct fake_machine *machine); /* the moment at which what begins now is to happen */
void operation_post(struct fake_io *process, uint64_t token, int32_t result); /* a completion to be taken */
struct operation *operation_begin(struct fake_io *process, enum fake_call call, struct description *file,
                                  uint64_t token);
/* How much of the process's processor time that took. */
uint64_t operation_hand_over(struct fake_io *process);
/* Performs what the configured order lets happen now. */
void operation_run_due(struct fake_io *process);
/* An operation, out of its list, takes effect; its process hears of it. Freed. */
void operation_perform(struct fake_io *process, struct operation *operation);
/* An operation whose process is gone, out of its list, happens or not. Freed. */
void operation_land(struct fake_machine *machine, struct operation *operation, enum fake_fate fate);
struct operation *operation_unlink(struct operation **list, uint64_t n); /* NULL: there is no n-th */
unsigned operation_count(const struct operation *list);
void operation_free(struct fake_machine *machine, struct operation *operation);

#endif
