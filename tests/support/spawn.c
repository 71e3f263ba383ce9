/* SPDX-License-Identifier: Apache-2.0 */
/* Processes for tests: see spawn.h. */
#include "tests/support/spawn.h"

#include "tests/support/wait.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void refuse(const char *what)
{
    perror(what);
    abort();
}

/* In the child: it dies with the test, and sees signals as a fresh program does. */
static void tie_to_parent(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(125);
    signal(SIGPIPE, SIG_DFL);
}

static _Noreturn void run_child(const char *const argv[], const char *const environment[], const int fds[3],
                                pid_t parent)
{
    tie_to_parent(parent);
    for (int i = 0; i < 3; i++)
        if (dup2(fds[i], i) < 0)
            _exit(126);
    for (; environment != NULL && *environment != NULL; environment++)
        if (putenv((char *)(uintptr_t)*environment) != 0)
            _exit(126);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

void process_start(struct process *process, const char *const argv[], const char *const environment[])
{
    int in[2];
    int out[2];
    int err[2];
    pid_t parent = getpid();

    signal(SIGPIPE, SIG_IGN); /* a child that reads nothing must not end the test */
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0)
        refuse("pipe2");
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        refuse("fork");
    if (pid == 0)
        run_child(argv, environment, (const int[3]){in[0], out[1], err[1]}, parent);
    close(in[0]);
    close(out[1]);
    close(err[1]);
    if (fcntl(out[0], F_SETFL, O_NONBLOCK) != 0 || fcntl(err[0], F_SETFL, O_NONBLOCK) != 0)
        refuse("fcntl");
    *process = (struct process){.pid = pid, .input = in[1], .output = out[0], .error = err[0]};
}

/* Reads what is there now, or waits for it, and appends it with a NUL. Bytes read; 0 at end of file; -1: not in
 * time. */
static ssize_t read_more(int fd, char **buffer, size_t *size, uint64_t end_ms)
{
    for (;;) {
        char *larger = realloc(*buffer, *size + 65537);
        if (larger == NULL)
            refuse("realloc");
        *buffer = larger;
        ssize_t count = read(fd, larger + *size, 65536);
        if (count >= 0) {
            *size += (size_t)count;
            larger[*size] = '\0';
            return count;
        }
        if (errno != EAGAIN && errno != EINTR)
            return 0;
        uint64_t now = wait_now_ms();
        if (now >= end_ms)
            return -1;
        wait_fd(fd, POLLIN, (unsigned)(end_ms - now));
    }
}

char *process_line(struct process *process, unsigned milliseconds)
{
    uint64_t end = wait_now_ms() + milliseconds;

    for (;;) {
        char *newline = process->pending == 0 ? NULL : memchr(process->line, '\n', process->pending);
        if (newline != NULL) {
            size_t length = (size_t)(newline - process->line);
            char *line = strndup(process->line, length);
            process->pending -= length + 1;
            memmove(process->line, newline + 1, process->pending);
            return line;
        }
        if (read_more(process->output, &process->line, &process->pending, end) <= 0)
            return NULL;
    }
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void process_close_input(struct process *process)
{
    close_one(&process->input);
}

void process_signal(const struct process *process, int signal)
{
    if (process->pid > 0 && kill(process->pid, signal) != 0)
        refuse("kill");
}

/* True if it came to an end in time. */
static bool wait_end(pid_t pid, int *status, unsigned milliseconds)
{
    uint64_t end = wait_now_ms() + milliseconds;

    for (;;) {
        pid_t ended = waitpid(pid, status, WNOHANG);
        if (ended == pid)
            return true;
        if (ended < 0 && errno != EINTR)
            refuse("waitpid");
        if (wait_now_ms() >= end)
            return false;
        wait_pause();
    }
}

int process_wait(struct process *process, unsigned milliseconds)
{
    int status;

    if (process->pid <= 0 || !wait_end(process->pid, &status, milliseconds))
        return -1;
    process->pid = 0;
    return status;
}

void process_end(struct process *process)
{
    if (process->pid > 0) {
        kill(process->pid, SIGKILL);
        while (waitpid(process->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    if (process->output > 0) { /* 0: zeroed, never started */
        close_one(&process->input);
        close_one(&process->output);
        close_one(&process->error);
    }
    free(process->line);
    *process = (struct process){.pid = 0, .input = -1, .output = -1, .error = -1};
}

static int exit_status(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Writes the input as it is taken, reads both outputs as they come, until both have ended. False: not in time. */
static bool exchange(struct process *process, struct process_result *result, const char *input, size_t left,
                     uint64_t end)
{
    bool open[2] = {true, true};

    if (left == 0)
        process_close_input(process);
    else if (fcntl(process->input, F_SETFL, O_NONBLOCK) != 0)
        refuse("fcntl");
    while (open[0] || open[1]) {
        struct pollfd look[3] = {{.fd = open[0] ? process->output : -1, .events = POLLIN},
                                 {.fd = open[1] ? process->error : -1, .events = POLLIN},
                                 {.fd = process->input, .events = POLLOUT}};
        uint64_t now = wait_now_ms();
        if (now >= end)
            return false;
        if (poll(look, 3, (int)(end - now)) < 0 && errno != EINTR)
            refuse("poll");
        if (look[0].revents != 0 && read_more(process->output, &result->output, &result->output_size, end) == 0)
            open[0] = false;
        if (look[1].revents != 0 && read_more(process->error, &result->error, &result->error_size, end) == 0)
            open[1] = false;
        if (look[2].revents != 0) {
            ssize_t count = write(process->input, input, left);
            if (count > 0) {
                input += count;
                left -= (size_t)count;
            }
            if (left == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
                process_close_input(process);
        }
    }
    return true;
}

struct process_result process_run(const char *const argv[], const char *const environment[], const void *input,
                                  size_t input_size, unsigned milliseconds)
{
    struct process process;
    struct process_result result = {.status = -1};
    uint64_t end = wait_now_ms() + milliseconds;

    result.output = calloc(1, 1);
    result.error = calloc(1, 1);
    if (result.output == NULL || result.error == NULL)
        refuse("calloc");
    process_start(&process, argv, environment);
    if (exchange(&process, &result, input, input_size, end)) {
        uint64_t now = wait_now_ms();
        int status = process_wait(&process, now < end ? (unsigned)(end - now) : 0);
        if (process.pid == 0)
            result.status = exit_status(status);
    }
    process_end(&process);
    return result;
}

void process_result_free(struct process_result *result)
{
    free(result->output);
    free(result->error);
    *result = (struct process_result){.status = -1};
}

pid_t fork_run(int (*body)(void *), void *argument)
{
    pid_t parent = getpid();

    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        refuse("fork");
    if (pid == 0) {
        tie_to_parent(parent);
        _exit(body(argument));
    }
    return pid;
}

int fork_wait(pid_t pid, unsigned milliseconds)
{
    int status;

    if (wait_end(pid, &status, milliseconds))
        return exit_status(status);
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return -1;
}

char *read_all(int fd, size_t *size, unsigned milliseconds)
{
    uint64_t end = wait_now_ms() + milliseconds;
    int flags = fcntl(fd, F_GETFL);
    char *buffer = NULL;
    ssize_t count;

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        refuse("fcntl");
    *size = 0;
    do
        count = read_more(fd, &buffer, size, end);
    while (count > 0);
    if (count == 0)
        return buffer;
    free(buffer);
    return NULL;
}

char *read_file(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return NULL;
    char *content = read_all(fd, size, WAIT_MS);
    close(fd);
    return content;
}

/* Besides "." and ".."; -1: it is not there. */
static int entries(const char *path)
{
    DIR *directory = opendir(path);
    int count = 0;

    if (directory == NULL)
        return -1;
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count >= 2 ? count - 2 : -1;
}

unsigned open_descriptors(void)
{
    int count = entries("/proc/self/fd");

    if (count < 1)
        refuse("/proc/self/fd");
    return (unsigned)count - 1; /* without the directory's own */
}

unsigned process_descriptors(pid_t pid)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    int count = entries(path);

    return count < 0 ? 0 : (unsigned)count;
}

bool process_is_stopped(pid_t pid)
{
    char path[64], line[256] = "";

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    if (fgets(line, sizeof(line), file) == NULL)
        line[0] = '\0';
    fclose(file);
    const char *name_end = strrchr(line, ')'); /* a name may hold anything */
    return name_end != NULL && strlen(name_end) > 2 && name_end[2] == 'T';
}

uint64_t process_anonymous_bytes(pid_t pid)
{
    char path[64], line[256];
    uint64_t kilobytes = 0;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    while (kilobytes == 0 && fgets(line, sizeof(line), file) != NULL)
        (void)sscanf(line, "RssAnon: %" SCNu64, &kilobytes);
    fclose(file);
    return kilobytes * 1024;
}
