/* SPDX-License-Identifier: Apache-2.0 */
/* Options as people type them. What is accepted is within the limits of limits.h and fits together, whatever was given;
 * what is refused has a text that says so. Values are read as a second, plain reading says (in 128 bits, so that
 * nothing can overflow), and what is written of a value is read back as that value.
 *
 * Input: a byte, then arguments of `millrace serve`, each an option of the table or any text; or one value. Planted
 * fault: sizes may have a small k. */
#include "engine/node/options.h"
#include "engine/node/values.h"
#include "tests/fuzz/fuzz.h"

#include <millrace/limits.h>
#include <stdlib.h>
#include <string.h>

enum { ARGUMENTS = 24, TEXT = 256 };

bool __real_value_size(const char *text, uint64_t *bytes);
bool __wrap_value_size(const char *text, uint64_t *bytes);

bool __wrap_value_size(const char *text, uint64_t *bytes)
{
    char copy[TEXT];
    size_t size = strlen(text);
    if (!fuzz_planted() || size == 0 || size >= TEXT || text[size - 1] != 'k')
        return __real_value_size(text, bytes);
    memcpy(copy, text, size + 1);
    copy[size - 1] = 'K';
    return __real_value_size(copy, bytes);
}

/* ---- values ---- */

struct unit {
    const char *name;
    uint64_t factor;
};
static const struct unit number_units[] = {{"", 1}, {NULL, 0}};
static const struct unit size_units[] = {{"", 1}, {"K", 1024}, {"M", 1 << 20}, {"G", 1 << 30}, {NULL, 0}};
static const struct unit duration_units[] = {{"ns", 1},        {"us", 1000},          {"ms", 1000000},
                                             {"s", MR_SECOND}, {"m", 60 * MR_SECOND}, {"h", 3600 * MR_SECOND},
                                             {NULL, 0}};

/* Digits and one of the units, and no more than 64 bits. */
static bool plain_reading(const char *text, const struct unit *units, uint64_t *value)
{
    unsigned __int128 number = 0;
    size_t digits = strspn(text, "0123456789");
    bool zero = true;
    for (size_t i = 0; i < digits; i++) {
        number = number > UINT64_MAX ? number : number * 10 + (unsigned)(text[i] - '0');
        zero = zero && text[i] == '0';
    }
    if (digits == 0)
        return false;
    if (zero && units == duration_units && text[digits] == '\0') {
        *value = 0;
        return true;
    }
    for (; units->name != NULL; units++) {
        if (strcmp(text + digits, units->name) != 0)
            continue;
        *value = (uint64_t)(number * units->factor);
        return number <= UINT64_MAX && number * units->factor <= UINT64_MAX;
    }
    return false;
}

static void check_value(bool (*read)(const char *, uint64_t *), const struct unit *units,
                        char *(*write)(char *, uint64_t), const char *text)
{
    uint64_t value = 0, expected = 0, again = 0;
    char written[32];
    bool good = read(text, &value);
    FUZZ_CHECK(good == plain_reading(text, units, &expected));
    if (!good || write == NULL)
        return;
    FUZZ_CHECK(value == expected);
    FUZZ_CHECK(write(written, value) == written && strlen(written) < sizeof(written));
    FUZZ_CHECK(read(written, &again) && again == value);
}

/* One to five octal digits. */
static void check_mode(const char *text)
{
    uint64_t mode = 0;
    char *end;
    size_t digits = strspn(text, "01234567");
    bool good = value_mode(text, &mode);
    FUZZ_CHECK(good == (digits > 0 && digits <= 5 && text[digits] == '\0'));
    FUZZ_CHECK(!good || mode == strtoull(text, &end, 8));
}

static void check_cpus(const char *text)
{
    cpu_set_t cpus, again;
    char written[8 * CPU_SETSIZE], shortened[40];
    if (!value_cpus(text, &cpus))
        return;
    FUZZ_CHECK(CPU_COUNT(&cpus) > 0);
    value_write_cpus(written, sizeof(written), &cpus);
    FUZZ_CHECK(value_cpus(written, &again) && CPU_EQUAL(&cpus, &again));
    value_write_cpus(shortened, sizeof(shortened), &cpus);
    FUZZ_CHECK(memchr(shortened, '\0', sizeof(shortened)) != NULL);
    FUZZ_CHECK(strcmp(shortened, written) == 0 || strstr(shortened, "...") != NULL);
}

/* ---- options ---- */

static void within(uint64_t value, uint64_t least, uint64_t most)
{
    FUZZ_CHECK(value >= least && value <= most);
}

/* (id_t)-1 would be "no change" to the kernel. */
static void check_ids(const struct access_list *list)
{
    FUZZ_CHECK(list->given ? list->count > 0 : list->count == 0);
    FUZZ_CHECK(list->count <= MR_ALLOWED_MAX);
    for (unsigned n = 0; n < list->count; n++)
        FUZZ_CHECK(list->ids[n] != (id_t)-1);
}

static void check_accepted(const struct options *options)
{
    uint64_t largest = options->max_payload > options->batch_bytes ? options->max_payload : options->batch_bytes;
    FUZZ_CHECK(options->dir != NULL && options->dir[0] != '\0');
    FUZZ_CHECK(options->socket[0] != '\0' && strlen(options->socket) <= MR_SOCKET_PATH_MAX);
    within(options->partitions, 1, MR_PARTITIONS_MAX);
    FUZZ_CHECK(options->durability <= DURABILITY_MEMORY && options->idle <= IDLE_BLOCK);
    within(options->ring_bytes, MR_RING_BYTES_MIN, MR_RING_BYTES_MAX);
    FUZZ_CHECK((options->ring_bytes & (options->ring_bytes - 1)) == 0);
    within(options->max_payload, MR_PAYLOAD_MIN, options->ring_bytes / 4);
    within(options->batch_bytes, MR_BATCH_BYTES_MIN, MR_BATCH_BYTES_MAX);
    within(options->segment_bytes, 4 * largest, MR_SEGMENT_BYTES_MAX);
    FUZZ_CHECK(options->segment_bytes >= MR_SEGMENT_BYTES_MIN && options->segment_bytes % 4096 == 0);
    within(options->flush_interval, MR_FLUSH_INTERVAL_MIN, MR_FLUSH_INTERVAL_MAX);
    if (options->disk_limit != 0) {
        within(options->disk_limit, MR_DISK_LIMIT_MIN, MR_DISK_LIMIT_MAX);
        within(options->segment_bytes, MR_SEGMENT_BYTES_MIN, options->disk_limit / MR_DISK_LIMIT_SEGMENTS);
        within(options->snapshot_bytes, MR_SNAPSHOT_BYTES_MIN, options->disk_limit / MR_DISK_LIMIT_SNAPSHOTS);
    }
    if (options->snapshot_bytes != 0)
        within(options->snapshot_bytes, MR_SNAPSHOT_BYTES_MIN, MR_SNAPSHOT_BYTES_MAX);
    within(options->session_outputs, MR_SESSION_OUTPUT_BYTES_MIN, MR_SESSION_OUTPUT_BYTES_MAX);
    FUZZ_CHECK(options->access.socket_mode <= 0777 && options->sandbox <= SANDBOX_OFF);
    check_ids(&options->access.uids);
    check_ids(&options->access.gids);
    FUZZ_CHECK(!options->access.socket_group_given || options->access.socket_group != (gid_t)-1);
    if (options->memory_limit != 0)
        within(options->memory_limit, MR_MEMORY_LIMIT_MIN, MR_MEMORY_LIMIT_MAX);
    within(options->user_connections, 1, MR_CONNECTIONS_MAX);
    within(options->user_channels, 1, MR_CHANNELS_MAX);
    within(options->max_sessions, 1, MR_SESSIONS_MAX);
    within(options->user_sessions, 1, MR_SESSIONS_MAX);
    within(options->max_services, 1, MR_SERVICES_MAX);
    FUZZ_CHECK(options->cpu_count > 0 && (int)options->cpu_count == CPU_COUNT(&options->cpus));
    FUZZ_CHECK(options->cpu_count <= options->cpu_count_in_all);
}

static void append(char to[TEXT], const char *text, size_t size)
{
    size_t used = strlen(to), room = TEXT - 1 - used;
    memcpy(to + used, text, size < room ? size : room);
    to[used + (size < room ? size : room)] = '\0';
}

static void append_bytes(char to[TEXT], struct fuzz_input *input)
{
    struct slice bytes = fuzz_bytes(input);
    append(to, (const char *)bytes.data, strnlen((const char *)bytes.data, bytes.size));
}

static void append_number(char to[TEXT], struct fuzz_input *input, bool octal)
{
    char number[32];
    snprintf(number, sizeof(number), octal ? "%llo" : "%llu", (unsigned long long)fuzz_number(input));
    append(to, number, strlen(number));
}

/* Users or groups, more than can be named among them. */
static void append_ids(char to[TEXT], struct fuzz_input *input)
{
    static const char *const names[] = {"root", "daemon", "nobody", "none-such", "", "4294967294", "4294967295"};
    enum { NAMES = sizeof(names) / sizeof(names[0]) };
    for (uint64_t left = 1 + fuzz_below(input, MR_ALLOWED_MAX + 8); left > 0; left--) {
        uint8_t form = fuzz_byte(input);
        if (form < 8 * NAMES)
            append(to, names[form / 8], strlen(names[form / 8]));
        else
            append_number(to, input, false);
        if (left > 1)
            append(to, ",", 1);
    }
}

static void append_value(char to[TEXT], struct fuzz_input *input)
{
    static const char *const units[] = {"", "K", "M", "G", "ns", "us", "ms", "s", "m", "h"};
    static const char *const words[] = {"sync", "async", "memory", "spin",     "adaptive", "block", "none",
                                        "0",    "0-1",   "auto",   "required", "off",      "root",  "x"};
    enum { WORDS = sizeof(words) / sizeof(words[0]) };
    uint8_t form = fuzz_byte(input);
    if (form < 128) {
        append_number(to, input, false);
        append(to, units[form % 10], strlen(units[form % 10]));
    } else if (form < 192) {
        append(to, words[form % WORDS], strlen(words[form % WORDS]));
    } else if (form < 208) {
        append(to, "0", form % 2);
        append_number(to, input, true);
    } else if (form < 224) {
        append_ids(to, input);
    } else {
        append_bytes(to, input);
    }
}

/* One argument; of an option, its value may be in it. Which options there are the table says. */
static void make_argument(char to[TEXT], struct fuzz_input *input)
{
    static unsigned count = 0;
    uint8_t form = fuzz_byte(input);
    while (options_name(count) != NULL)
        count++;
    to[0] = '\0';
    if (form < 224) {
        const char *name = options_name((unsigned)fuzz_below(input, count));
        append(to, "--", 2);
        append(to, name, form % 16 == 15 ? strlen(name) - 1 : strlen(name));
        if (form % 16 >= 2) {
            append(to, "=", 1);
            append_value(to, input);
        }
    } else if (form % 2 == 0) {
        append_value(to, input);
    } else {
        append_bytes(to, input);
    }
}

static void check_arguments(struct fuzz_input *input, bool with_directory)
{
    static char texts[ARGUMENTS][TEXT];
    char name[] = "serve", dir[] = "--dir=/d";
    char *argv[ARGUMENTS + 3] = {name};
    int argc = 1;
    struct options options;
    struct mr_error error = {0};
    memset(&error.text, 'x', sizeof(error.text));
    if (with_directory)
        argv[argc++] = dir;
    for (int i = 0; i < ARGUMENTS && fuzz_more(input); i++) {
        make_argument(texts[i], input);
        argv[argc++] = texts[i];
    }
    enum options_result result = options_parse(argc, argv, &options, &error);
    if (result == OPTIONS_OK)
        check_accepted(&options);
    if (result == OPTIONS_WRONG)
        FUZZ_CHECK(error.text[0] != '\0' && memchr(error.text, '\0', sizeof(error.text)) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, data + size};
    char text[TEXT] = "";
    uint8_t form = fuzz_byte(&input);
    if (form >= 64) {
        check_arguments(&input, form < 250);
        return 0;
    }
    if (form < 32)
        append_value(text, &input);
    else
        append_bytes(text, &input);
    check_value(value_number, number_units, NULL, text);
    check_value(value_size, size_units, value_write_size, text);
    check_value(value_duration, duration_units, value_write_duration, text);
    check_mode(text);
    check_cpus(text);
    return 0;
}
