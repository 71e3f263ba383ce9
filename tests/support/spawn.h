/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that a test starts: programs with pipes to their standard streams, plain forks, their ends. Every child
 * dies with the test (SIGKILL), so a failing test leaves nothing behind. Functions abort where the machine refuses (no
 * fork, no pipe); what the child does is the test's to judge. */
#ifndef TESTS_SUPPORT_SPAWN_H
#define TESTS_SUPPORT_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct process {
    pid_t pid;      /* 0 once it has been waited for */
    int input;      /* its standard input; -1 once closed */
    int output;     /* its standard output; non-blocking */
    int error;      /* its standard error; non-blocking */
    char *line;     /* what process_line() has read and not yet returned */
    size_t pending; /* bytes in it */
};

/* Starts argv[0] (searched in PATH unless it has a slash) with the test's environment, changed by `environment` (NULL
 * or "NAME=value" strings ending with NULL). */
void process_start(struct process *process, const char *const argv[], const char *const environment[]);
/* The next line of its standard output without its newline, the caller's to free; NULL: no whole line came before
 * end of file or in time. */
char *process_line(struct process *process, unsigned milliseconds);
void process_close_input(struct process *process);
void process_signal(const struct process *process, int signal);
/* Waits for its end: the status of waitpid(), or -1 if it does not come in time. */
int process_wait(struct process *process, unsigned milliseconds);
/* Kills it if it still runs, waits, closes the pipes, frees the buffer. Safe on a zeroed one and twice. */
void process_end(struct process *process);

/* A program from start to end: `input` (or NULL) on its standard input, both outputs taken whole. */
struct process_result {
    int status;   /* exit status; 128 + signal if a signal ended it; -1: killed because the time was over */
    char *output; /* NUL-terminated, besides output_size bytes */
    size_t output_size;
    char *error;
    size_t error_size;
};
struct process_result process_run(const char *const argv[], const char *const environment[], const void *input,
                                  size_t input_size, unsigned milliseconds);
void process_result_free(struct process_result *result);

/* Forks; the child runs body(argument) and exits with its result, without running anything of the test's own exit. */
pid_t fork_run(int (*body)(void *), void *argument);
/* Waits for a child of fork_run(): exit status, 128 + signal, or -1 (and it is killed) if the time is over. */
int fork_wait(pid_t pid, unsigned milliseconds);

/* Reads until end of file; the caller's to free, NUL-terminated besides *size bytes. NULL: not in time. */
char *read_all(int fd, size_t *size, unsigned milliseconds);
/* The whole of a file, likewise; NULL if it cannot be opened. */
char *read_file(const char *path, size_t *size);
/* Descriptors that this process has open. */
unsigned open_descriptors(void);
/* The same of any process, 0 where it is gone; and whether it is stopped (by SIGSTOP). */
unsigned process_descriptors(pid_t pid);
bool process_is_stopped(pid_t pid);
/* Its memory that no other process shares (RssAnon); 0: there is no such process. */
uint64_t process_anonymous_bytes(pid_t pid);

#endif
