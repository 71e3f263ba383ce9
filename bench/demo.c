/* SPDX-License-Identifier: Apache-2.0 */
/* The client of `make demo`: counts a text's words in a node, and afterwards compares what the node holds with what
 * somebody else has counted. bench/demo.sh starts the node and runs this twice. It knows nothing of Millrace but the
 * public headers, and finds the node by MILLRACE_SOCKET.
 *
 *     millrace-demo count FILE WORDS REPORT PID...   one pid for each partition's worker
 *     millrace-demo compare                          lines `WORD COUNT LINE` on standard input
 *
 * A word is a run of letters A to Z in either case, of which the first WORD_MAX count. Words are taken in the text's
 * order, round after round, until WORDS are counted. Each is an increment of the counter of that name, and a put of the
 * number of the line on which it stands into the map MAP_NAME. Up to IN_FLIGHT requests are under way at a time.
 * Half-way the worker of the map's partition is killed. */
#include <millrace/counter.h>
#include <millrace/map.h>
#include <millrace/raw.h>

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WORD_MAX 64
#define IN_FLIGHT 1000
#define MAP_NAME "last-line" /* no word: a word's name is its counter's */
#define PARTITIONS_MAX 64
#define SECOND INT64_C(1000000000)
#define DIFFERENCES_SHOWN 20

struct word {
    char text[WORD_MAX + 1];
    struct word *next;  /* with the same hash */
    uint32_t partition; /* where its counter lives */
    mr_counter *counter;
    int64_t count; /* compare: what it should be */
    uint64_t line; /* likewise */
};

struct place {
    struct word *word;
    uint64_t line;
};

struct text {
    struct word **words; /* the distinct ones, in the order of their first places */
    size_t distinct, words_room;
    struct word **table; /* by hash */
    size_t table_size;   /* a power of two */
    struct place *places;
    size_t count, places_room;
};

/* Latencies by size, 16 classes for each power of two. */
struct histogram {
    uint64_t classes[64 * 16];
    uint64_t count;
};

struct flight {
    struct demo *demo;
    int64_t started; /* CLOCK_MONOTONIC, nanoseconds, as are all times here */
    uint32_t partition;
    struct flight *next_free;
};

struct demo {
    mr_client *client;
    mr_map *map;
    uint32_t map_partition;
    struct flight flights[IN_FLIGHT], *free_flight;
    unsigned in_flight;
    uint64_t answers;
    struct histogram latency;
    int64_t last_answer[PARTITIONS_MAX + 1]; /* by partition */
    bool killed;
    int64_t pause;       /* from the kill on, the longest time between two answers of that partition */
    int64_t progress_at; /* when to say next how far it is */
    uint64_t progress_answers;
    uint64_t differences;
};

static _Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void die(const char *format, ...)
{
    va_list arguments;

    fputs("demo: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    putc('\n', stderr);
    exit(1);
}

static void *allocate(void *old, size_t count, size_t size)
{
    void *memory = reallocarray(old, count, size);

    if (memory == NULL)
        die("no memory for %zu times %zu bytes", count, size);
    return memory;
}

static int64_t now(void)
{
    struct timespec time;

    if (clock_gettime(CLOCK_MONOTONIC, &time) != 0)
        die("the clock cannot be read: %s", strerror(errno));
    return time.tv_sec * SECOND + time.tv_nsec;
}

static uint64_t number_of(const char *text, const char *what)
{
    char *end;

    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0)
        die("%s: '%s' is not a whole number", what, text);
    return number;
}

/* ---- The text ---- */

static uint64_t hash(const char *text)
{
    uint64_t value = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

    for (; *text != '\0'; text++)
        value = (value ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
    return value ^ value >> 32;
}

static void grow_table(struct text *text)
{
    free(text->table);
    text->table_size = text->table_size == 0 ? 1024 : 4 * text->table_size;
    text->table = calloc(text->table_size, sizeof(*text->table));
    if (text->table == NULL)
        die("no memory for %zu words", text->distinct);
    for (size_t i = 0; i < text->distinct; i++) {
        struct word **slot = &text->table[hash(text->words[i]->text) & (text->table_size - 1)];
        text->words[i]->next = *slot;
        *slot = text->words[i];
    }
}

static struct word *find_word(struct text *text, const char *letters)
{
    if (text->distinct * 2 >= text->table_size)
        grow_table(text);
    struct word **slot = &text->table[hash(letters) & (text->table_size - 1)];
    for (struct word *word = *slot; word != NULL; word = word->next)
        if (strcmp(word->text, letters) == 0)
            return word;
    if (text->distinct == text->words_room) {
        text->words_room = 2 * text->words_room + 1024;
        text->words = allocate(text->words, text->words_room, sizeof(*text->words));
    }
    struct word *word = allocate(NULL, 1, sizeof(*word));
    *word = (struct word){.next = *slot};
    strcpy(word->text, letters);
    text->words[text->distinct++] = *slot = word;
    return word;
}

static void add_place(struct text *text, const char *letters, uint64_t line)
{
    if (text->count == text->places_room) {
        text->places_room = 2 * text->places_room + 4096;
        text->places = allocate(text->places, text->places_room, sizeof(*text->places));
    }
    text->places[text->count++] = (struct place){.word = find_word(text, letters), .line = line};
}

/* Reads a file's words, no more than `most`. */
static void read_text(struct text *text, const char *path, uint64_t most)
{
    char letters[WORD_MAX + 1];
    size_t length = 0;
    uint64_t line = 1;
    int c = 0;
    FILE *file = fopen(path, "r");

    if (file == NULL)
        die("%s: %s", path, strerror(errno));
    while (c != EOF && text->count < most) {
        c = getc_unlocked(file);
        int lower = c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
        if (lower >= 'a' && lower <= 'z') {
            if (length < WORD_MAX)
                letters[length++] = (char)lower;
            continue;
        }
        letters[length] = '\0';
        if (length > 0)
            add_place(text, letters, line);
        length = 0;
        line += c == '\n';
    }
    if (ferror(file))
        die("%s: %s", path, strerror(errno));
    fclose(file);
    if (text->count == 0)
        die("%s: there are no words in it (runs of the letters A to Z)", path);
}

static void free_text(struct text *text)
{
    for (size_t i = 0; i < text->distinct; i++)
        free(text->words[i]);
    free(text->words);
    free(text->table);
    free(text->places);
}

/* ---- Latencies ---- */

static void histogram_add(struct histogram *histogram, int64_t latency)
{
    uint64_t value = latency > 0 ? (uint64_t)latency : 0;
    unsigned shift = value < 16 ? 0 : 59 - (unsigned)__builtin_clzll(value);

    histogram->classes[shift * 16 + (value >> shift)]++;
    histogram->count++;
}

/* The latency that `percent` of the requests did not pass: the upper end of its class. */
static uint64_t histogram_percentile(const struct histogram *histogram, unsigned percent)
{
    uint64_t before = 0, wanted = (histogram->count * percent + 99) / 100;
    unsigned i = 0;

    for (; i < sizeof(histogram->classes) / sizeof(histogram->classes[0]) - 1; i++)
        if ((before += histogram->classes[i]) >= wanted)
            break;
    if (i < 32)
        return i;
    unsigned shift = i / 16 - 1;
    return ((uint64_t)(i - shift * 16) + 1) << shift;
}

/* ---- The node ---- */

static void check(struct demo *demo, enum mr_status status, const char *what)
{
    if (status != MR_OK)
        die("%s: %s: %s", what, mr_status_name(status), mr_message(demo->client));
}

static void connect_node(struct demo *demo)
{
    check(demo, mr_connect(NULL, NULL, &demo->client), "connecting");
    check(demo, mr_map_open(demo->client, MAP_NAME, &demo->map), "opening the map");
    check(demo, mr_partition_of(demo->client, NULL, MAP_NAME, &demo->map_partition), "finding the map");
    for (size_t i = 0; i < IN_FLIGHT; i++)
        demo->flights[i] = (struct flight){.demo = demo, .next_free = i > 0 ? &demo->flights[i - 1] : NULL};
    demo->free_flight = &demo->flights[IN_FLIGHT - 1];
}

/* About once a second: true if it is time to say how far it is. */
static bool is_time(struct demo *demo)
{
    int64_t time = now();

    if (demo->progress_at == 0)
        demo->progress_at = time + SECOND;
    if (time < demo->progress_at)
        return false;
    demo->progress_at = time + SECOND;
    return true;
}

static void open_counters(struct demo *demo, struct text *text)
{
    for (size_t i = 0; i < text->distinct; i++) {
        struct word *word = text->words[i];
        check(demo, mr_counter_open(demo->client, word->text, &word->counter), word->text);
        check(demo, mr_partition_of(demo->client, NULL, word->text, &word->partition), word->text);
        if (is_time(demo)) {
            printf("  %9zu of %zu counters opened\n", i + 1, text->distinct);
            fflush(stdout);
        }
    }
}

static void counted(mr_client *client, const struct mr_result *result)
{
    struct flight *flight = result->arg;
    struct demo *demo = flight->demo;
    int64_t time = now(), *last = &demo->last_answer[flight->partition];

    (void)client;
    if (result->status != MR_OK)
        die("a command failed: %s: %.*s", mr_status_name(result->status), (int)result->message.size,
            (const char *)result->message.data);
    histogram_add(&demo->latency, time - flight->started);
    if (demo->killed && flight->partition == demo->map_partition && time - *last > demo->pause)
        demo->pause = time - *last;
    *last = time;
    demo->answers++;
    demo->in_flight--;
    flight->next_free = demo->free_flight;
    demo->free_flight = flight;
}

/* Starts one of a word's two commands. False: not now. */
static bool start(struct demo *demo, const struct place *place, bool put)
{
    struct flight *flight = demo->free_flight;
    struct mr_then then = {.done = counted, .arg = flight};
    enum mr_status status;

    if (flight == NULL)
        return false;
    flight->started = now();
    if (put) {
        char line[24];
        snprintf(line, sizeof(line), "%" PRIu64, place->line);
        flight->partition = demo->map_partition;
        status = mr_map_put_start(demo->map, mr_text(place->word->text), mr_text(line), NULL, then, NULL);
    } else {
        flight->partition = place->word->partition;
        status = mr_counter_increment_start(place->word->counter, 1, then, NULL);
    }
    if (status == MR_AGAIN)
        return false;
    check(demo, status, place->word->text);
    demo->free_flight = flight->next_free;
    demo->in_flight++;
    return true;
}

static void run(struct demo *demo)
{
    enum mr_status status = mr_run(demo->client, SECOND / 10, NULL);

    if (status != MR_AGAIN)
        check(demo, status, "waiting for answers");
}

static void show_progress(struct demo *demo)
{
    int64_t before = demo->progress_at - SECOND;

    if (!is_time(demo))
        return;
    double seconds = (double)(demo->progress_at - SECOND - before) / (double)SECOND;
    printf("  %9" PRIu64 " words   %9.0f commands/s\n", demo->answers / 2,
           (double)(demo->answers - demo->progress_answers) / seconds);
    fflush(stdout);
    demo->progress_answers = demo->answers;
}

static void kill_worker(struct demo *demo, pid_t pid)
{
    printf("half-way: killing the worker of partition %" PRIu32 ", pid %ld\n", demo->map_partition, (long)pid);
    fflush(stdout);
    if (kill(pid, SIGKILL) != 0)
        die("worker %ld cannot be killed: %s", (long)pid, strerror(errno));
    demo->killed = true;
}

static void count_words(struct demo *demo, const struct text *text, uint64_t words, pid_t victim)
{
    uint64_t started = 0; /* commands: two for each word */

    demo->progress_at = now() + SECOND;
    while (started < 2 * words || demo->in_flight > 0) {
        while (started < 2 * words) {
            if (!start(demo, &text->places[started / 2 % text->count], started % 2 == 1))
                break;
            started++;
            if (started == words && !demo->killed)
                kill_worker(demo, victim);
        }
        run(demo);
        show_progress(demo);
    }
}

static void write_report(const struct demo *demo, const char *path, uint64_t words, int64_t elapsed)
{
    FILE *file = fopen(path, "w");

    if (file == NULL)
        die("%s: %s", path, strerror(errno));
    fprintf(file, "words         %" PRIu64 "\n", words);
    fprintf(file, "commands      %" PRIu64 "\n", demo->answers);
    fprintf(file, "commands/s    %.0f\n", (double)demo->answers * (double)SECOND / (double)elapsed);
    fprintf(file, "latency p50   %.3f ms (%d in flight)\n", (double)histogram_percentile(&demo->latency, 50) / 1e6,
            IN_FLIGHT);
    fprintf(file, "latency p99   %.3f ms\n", (double)histogram_percentile(&demo->latency, 99) / 1e6);
    fprintf(file, "pause         %.3f ms (the longest between two answers after the kill)\n",
            (double)demo->pause / 1e6);
    if (fclose(file) != 0)
        die("%s: %s", path, strerror(errno));
}

static int count_main(char **argv, int argc)
{
    static struct demo demo;
    struct text text = {0};
    uint64_t words = number_of(argv[1], "WORDS");
    int64_t begun;

    if (words == 0 || words > INT64_MAX / 4)
        die("WORDS: from 1 to %" PRId64, INT64_MAX / 4);
    read_text(&text, argv[0], words);
    printf("%s: %zu words, %zu different, to be counted until there are %" PRIu64 "\n", argv[0], text.count,
           text.distinct, words);
    fflush(stdout);
    connect_node(&demo);
    if ((uint32_t)(argc - 3) != mr_partitions(demo.client))
        die("the node has %" PRIu32 " partitions, and %d pids are given", mr_partitions(demo.client), argc - 3);
    open_counters(&demo, &text);
    begun = now();
    count_words(&demo, &text, words, (pid_t)number_of(argv[2 + demo.map_partition], "PID"));
    write_report(&demo, argv[2], words, now() - begun);
    mr_close(demo.client);
    free_text(&text);
    return 0;
}

/* ---- Comparing ---- */

static void differ(struct demo *demo, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void differ(struct demo *demo, const char *format, ...)
{
    va_list arguments;

    if (demo->differences++ >= DIFFERENCES_SHOWN)
        return;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

static void read_expected(struct text *text)
{
    char line[WORD_MAX + 64], word[WORD_MAX + 1];
    int64_t count;
    uint64_t number;

    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (sscanf(line, "%64s %" SCNd64 " %" SCNu64, word, &count, &number) != 3)
            die("not a line `WORD COUNT LINE`: %s", line);
        struct word *found = find_word(text, word);
        found->count = count;
        found->line = number;
    }
    if (ferror(stdin))
        die("standard input cannot be read: %s", strerror(errno));
}

static int compare_main(void)
{
    static struct demo demo;
    struct text text = {0};
    uint64_t size;

    read_expected(&text);
    connect_node(&demo);
    for (size_t i = 0; i < text.distinct; i++) {
        struct word *word = text.words[i];
        struct mr_entry entry;
        int64_t value;
        char line[24];
        check(&demo, mr_counter_open(demo.client, word->text, &word->counter), word->text);
        check(&demo, mr_counter_get(word->counter, &value), word->text);
        if (value != word->count)
            differ(&demo, "%s: counted %" PRId64 " times, should be %" PRId64, word->text, value, word->count);
        snprintf(line, sizeof(line), "%" PRIu64, word->line);
        enum mr_status status = mr_map_get(demo.map, mr_text(word->text), &entry);
        if (status == MR_NOT_FOUND) {
            differ(&demo, "%s: on no line, should be on line %s", word->text, line);
            continue;
        }
        check(&demo, status, word->text);
        if (is_time(&demo)) {
            printf("  %9zu of %zu words compared\n", i + 1, text.distinct);
            fflush(stdout);
        }
        if (entry.value.size != strlen(line) || memcmp(entry.value.data, line, entry.value.size) != 0)
            differ(&demo, "%s: last on line %.*s, should be %s", word->text, (int)entry.value.size,
                   (const char *)entry.value.data, line);
    }
    check(&demo, mr_map_size(demo.map, &size), "the map's size");
    if (size != text.distinct)
        differ(&demo, "the map holds %" PRIu64 " words, should be %zu", size, text.distinct);
    if (demo.differences > DIFFERENCES_SHOWN)
        printf("... %" PRIu64 " differences in all\n", demo.differences);
    mr_close(demo.client);
    free_text(&text);
    return demo.differences == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc >= 6 && strcmp(argv[1], "count") == 0)
        return count_main(argv + 2, argc - 2);
    if (argc == 2 && strcmp(argv[1], "compare") == 0)
        return compare_main();
    fputs("usage: millrace-demo count FILE WORDS REPORT PID... | compare\n", stderr);
    return 2;
}
