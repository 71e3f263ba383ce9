/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing values as people type them: see values.h. Pure; knows nothing of options. */
#include "engine/node/values.h"

#include <millrace/limits.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct unit {
    const char *name;
    uint64_t factor;
};

/* From large to small: writing takes the first that divides. */
static const struct unit size_units[] = {{"G", MR_GIB}, {"M", MR_MIB}, {"K", MR_KIB}, {"", 1}, {NULL, 0}};
static const struct unit duration_units[] = {
    {"h", MR_HOUR}, {"m", 60 * MR_SECOND}, {"s", MR_SECOND}, {"ms", MR_MILLISECOND}, {"us", MR_MICROSECOND}, {"ns", 1},
    {NULL, 0}};

/* Digits at *text; moves it behind them. */
static bool take_digits(const char **text, uint64_t *number)
{
    const char *at = *text;
    uint64_t value = 0;

    if (*at < '0' || *at > '9')
        return false;
    for (; *at >= '0' && *at <= '9'; at++)
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
            return false;
    *text = at;
    *number = value;
    return true;
}

static bool take_unit(const char *text, const struct unit *units, uint64_t number, uint64_t *value)
{
    for (; units->name != NULL; units++)
        if (strcmp(text, units->name) == 0)
            return !__builtin_mul_overflow(number, units->factor, value);
    return false;
}

bool value_number(const char *text, uint64_t *number)
{
    uint64_t value;

    if (!take_digits(&text, &value) || *text != '\0')
        return false;
    *number = value;
    return true;
}

bool value_mode(const char *text, uint64_t *mode)
{
    size_t digits = strspn(text, "01234567");
    uint64_t value = 0;

    if (digits == 0 || digits > 5 || text[digits] != '\0')
        return false;
    for (; *text != '\0'; text++)
        value = 8 * value + (uint64_t)(*text - '0');
    *mode = value;
    return true;
}

bool value_size(const char *text, uint64_t *bytes)
{
    uint64_t number;

    return take_digits(&text, &number) && take_unit(text, size_units, number, bytes);
}

bool value_duration(const char *text, uint64_t *nanoseconds)
{
    uint64_t number;

    if (!take_digits(&text, &number))
        return false;
    if (number == 0 && *text == '\0') {
        *nanoseconds = 0;
        return true;
    }
    return take_unit(text, duration_units, number, nanoseconds);
}

bool value_cpus(const char *text, cpu_set_t *cpus)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    for (;;) {
        uint64_t first, last;
        if (!take_digits(&text, &first))
            return false;
        last = first;
        if (*text == '-') {
            text++;
            if (!take_digits(&text, &last))
                return false;
        }
        if (last < first || last >= CPU_SETSIZE)
            return false;
        for (uint64_t cpu = first; cpu <= last; cpu++)
            CPU_SET((size_t)cpu, &set);
        if (*text == '\0')
            break;
        if (*text++ != ',')
            return false;
    }
    *cpus = set;
    return true;
}

static char *write_unit(char text[32], uint64_t value, const struct unit *units)
{
    while (units[1].name != NULL && (value == 0 || value % units->factor != 0))
        units++;
    snprintf(text, 32, "%" PRIu64 "%s", value / units->factor, units->name);
    return text;
}

char *value_write_size(char text[32], uint64_t bytes)
{
    return write_unit(text, bytes, size_units);
}

char *value_write_duration(char text[32], uint64_t nanoseconds)
{
    return write_unit(text, nanoseconds, duration_units);
}

char *value_write_cpus(char *text, size_t size, const cpu_set_t *cpus)
{
    size_t used = 0;

    text[0] = '\0';
    for (size_t first = 0; first < CPU_SETSIZE; first++) {
        char range[64];
        size_t last = first;
        if (!CPU_ISSET(first, cpus))
            continue;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, cpus))
            last++;
        const char *comma = used > 0 ? "," : "";
        int length = last == first ? snprintf(range, sizeof(range), "%s%zu", comma, first)
                                   : snprintf(range, sizeof(range), "%s%zu-%zu", comma, first, last);
        if (used + (size_t)length + 4 > size) { /* the four bytes of "..." */
            snprintf(text + used, size - used, "...");
            break;
        }
        memcpy(text + used, range, (size_t)length + 1);
        used += (size_t)length;
        first = last;
    }
    return text;
}
