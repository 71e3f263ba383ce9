/* SPDX-License-Identifier: Apache-2.0 */
/* Which system calls are to fail, in builds for tests (-DMR_TESTING); in others this file is empty. See sys.h for what
 * a test can ask for. The table lies in memory shared with every forked child, so that a fault fires once for the whole
 * tree of processes and the test sees in the parent what happened in the child. */
#ifdef MR_TESTING

#include "ipc/sys.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct fault {
    _Atomic uint32_t left; /* the call that counts this down from 1 fails; 0: not armed */
    atomic_int code;       /* errno it fails with */
    atomic_bool for_ever;  /* left stays at 1 */
    atomic_uint calls;     /* of this kind, since the last clear */
    atomic_uint failed;    /* of them, made to fail */
};

static struct fault *table; /* SYS_CALL_COUNT of them */
static bool announced;      /* armed by MR_FAULT: each fault says so on standard error */
static pid_t counted_for;   /* MR_FAULT=count: the process that prints what was counted */

static const char *const names[] = {
#define SYS_CALL_NAME(KIND, name) #name,
    SYS_CALLS(SYS_CALL_NAME)
#undef SYS_CALL_NAME
};

const char *sys_call_name(enum sys_call kind)
{
    return names[kind];
}

static void announce(enum sys_call kind, int code)
{
    char line[96];
    int length = snprintf(line, sizeof(line), "MR_FAULT: %s fails with %s in process %d\n", names[kind],
                          strerrorname_np(code), (int)getpid());

    /* Nobody to tell if even this fails. */
    if (write(STDERR_FILENO, line, (size_t)length) < 0)
        return;
}

bool sys_fault(enum sys_call kind)
{
    struct fault *fault = &table[kind];

    atomic_fetch_add(&fault->calls, 1);
    uint32_t left = atomic_load(&fault->left);
    while (left > 1)
        if (atomic_compare_exchange_weak(&fault->left, &left, left - 1))
            return false;
    if (left == 0)
        return false;
    if (!atomic_load(&fault->for_ever) && !atomic_compare_exchange_strong(&fault->left, &left, 0))
        return false; /* another process was the one */
    int code = atomic_load(&fault->code);
    atomic_fetch_add(&fault->failed, 1);
    if (announced)
        announce(kind, code);
    errno = code;
    return true;
}

void sys_fault_arm(enum sys_call kind, unsigned nth, int code, bool for_ever)
{
    struct fault *fault = &table[kind];

    atomic_store(&fault->left, 0);
    atomic_store(&fault->code, code);
    atomic_store(&fault->for_ever, for_ever);
    atomic_store(&fault->left, nth);
}

void sys_fault_clear(void)
{
    for (unsigned i = 0; i < SYS_CALL_COUNT; i++) {
        atomic_store(&table[i].left, 0);
        atomic_store(&table[i].calls, 0);
        atomic_store(&table[i].failed, 0);
    }
}

unsigned sys_fault_count(enum sys_call kind)
{
    return atomic_load(&table[kind].failed);
}

unsigned sys_call_count(enum sys_call kind)
{
    return atomic_load(&table[kind].calls);
}

/* One `name:nth[+]:ERRNO`. */
struct fault_text {
    enum sys_call kind;
    unsigned nth;
    int code;
    bool for_ever;
};

static bool parse_one(char *text, struct fault_text *out)
{
    char *rest = NULL;
    const char *name = strtok_r(text, ":", &rest);
    char *nth = strtok_r(NULL, ":", &rest);
    const char *code = strtok_r(NULL, ":", &rest);
    char *end = NULL;
    unsigned kind = 0;

    if (name == NULL || nth == NULL || code == NULL || strtok_r(NULL, ":", &rest) != NULL)
        return false;
    while (kind < SYS_CALL_COUNT && strcmp(names[kind], name) != 0)
        kind++;
    unsigned long number = strtoul(nth, &end, 10);
    out->for_ever = *end == '+';
    if (out->for_ever)
        end++;
    out->code = 0;
    for (int i = 1; i < 4096 && out->code == 0; i++)
        if (strerrorname_np(i) != NULL && strcmp(strerrorname_np(i), code) == 0)
            out->code = i;
    out->kind = (enum sys_call)kind;
    out->nth = (unsigned)number;
    return kind < SYS_CALL_COUNT && *nth >= '0' && *nth <= '9' && *end == '\0' && number >= 1 && number <= INT32_MAX &&
           out->code != 0;
}

bool sys_fault_parse(const char *text)
{
    struct fault_text faults[SYS_CALL_COUNT];
    char copy[4096];
    unsigned count = 0;
    char *rest = NULL;

    size_t size = strlen(text) + 1;
    if (size > sizeof(copy))
        return false;
    memcpy(copy, text, size);
    for (char *one = strtok_r(copy, ",", &rest); one != NULL; one = strtok_r(NULL, ",", &rest)) {
        if (count == SYS_CALL_COUNT || !parse_one(one, &faults[count]))
            return false;
        count++;
    }
    for (unsigned i = 0; i < count; i++)
        sys_fault_arm(faults[i].kind, faults[i].nth, faults[i].code, faults[i].for_ever);
    return true;
}

/* MR_FAULT=count: how many calls there were of each kind, when the process that began with it ends. */
static void print_counts(void)
{
    char line[4096] = "MR_FAULT: calls";
    size_t used = strlen(line);

    if (getpid() != counted_for)
        return;
    for (unsigned i = 0; i < SYS_CALL_COUNT; i++)
        used += (size_t)snprintf(line + used, sizeof(line) - used, " %s:%u", names[i], atomic_load(&table[i].calls));
    fprintf(stderr, "%s\n", line);
}

/* Before main(), so that no call is missed. */
__attribute__((constructor)) static void make_table(void)
{
    const char *text = getenv("MR_FAULT");

    table = mmap(NULL, SYS_CALL_COUNT * sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (table == MAP_FAILED) {
        perror("MR_FAULT: no memory for the table of faults");
        exit(2);
    }
    if (text == NULL)
        return;
    if (strcmp(text, "count") == 0) {
        counted_for = getpid();
        if (atexit(print_counts) != 0)
            exit(2);
        return;
    }
    announced = true;
    if (!sys_fault_parse(text)) {
        fprintf(stderr, "MR_FAULT: '%s' is not of the form name:nth[+]:ERRNO[,...]\n", text);
        exit(2);
    }
}

#endif
