/* SPDX-License-Identifier: Apache-2.0 */
/* See victim.h. */
#include "tests/crash/victim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/support/wait.h"

void victim_option(struct victim *victim, const char *name, const char *format, ...)
{
    va_list arguments;

    if (victim->option_count + 2 > VICTIM_OPTIONS_MAX)
        abort();
    snprintf(victim->option_text[victim->option_count++], sizeof(victim->option_text[0]), "%s", name);
    va_start(arguments, format);
    vsnprintf(victim->option_text[victim->option_count++], sizeof(victim->option_text[0]), format, arguments);
    va_end(arguments);
}

void victim_start(struct victim *victim)
{
    const char *argv[VICTIM_OPTIONS_MAX + 16] = {"/bin/sh", "-c",        "log=$1; shift; exec \"$@\" 2>>\"$log\"",
                                                 "sh",      victim->log, victim->program,
                                                 "serve",   "--dir",     victim->dir};
    const char *const environment[] = {victim->planted, NULL};
    unsigned count = 9;

    for (unsigned i = 0; i < victim->option_count; i++)
        argv[count++] = victim->option_text[i];
    process_end(&victim->process);
    process_start(&victim->process, argv, environment);
    victim->ready = false;
}

bool victim_wait_ready(struct victim *victim, unsigned milliseconds)
{
    if (!victim->ready) {
        char *line = process_line(&victim->process, milliseconds);
        victim->ready = line != NULL && strncmp(line, "ready ", 6) == 0;
        free(line);
    }
    return victim->ready;
}

bool victim_ended(struct victim *victim, int *status)
{
    if (victim->process.pid == 0 || waitpid(victim->process.pid, status, WNOHANG) != victim->process.pid)
        return false;
    victim->process.pid = 0;
    return true;
}

unsigned children_of(pid_t pid, pid_t pids[VICTIM_WORKERS_MAX])
{
    char path[64];
    unsigned count = 0;
    int child;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0; /* it has ended */
    while (count < VICTIM_WORKERS_MAX && fscanf(file, "%d", &child) == 1)
        pids[count++] = child;
    fclose(file);
    return count;
}

unsigned victim_workers(const struct victim *victim, pid_t pids[VICTIM_WORKERS_MAX])
{
    return victim->process.pid > 0 ? children_of(victim->process.pid, pids) : 0;
}
