/* The limit of a word count: one pass over mapped files into a hash table, then one sort.
 *
 *     cc -O2 -pthread -o wordcount wordcount.c && ./wordcount THREADS OUTPUT FILE...
 *
 * Words are what ASCII white space parts. The output has "word TAB count" lines, sorted by the bytes of the words.
 * It makes no promise at all: no retries, no memory limit, no second machine.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 16 << 20, FIRST_SLOTS = 1 << 16, MOST_THREADS = 64 };

struct entry { const unsigned char *word; uint64_t hash, count; uint32_t length; };
struct table { struct entry *slots; size_t mask, used; unsigned char *room; size_t left; };
struct text { const unsigned char *bytes; size_t size; };
struct chunk { const struct text *text; size_t from; };

static unsigned char space[256];
static struct chunk *chunks;
static size_t chunk_count;
static atomic_size_t next_chunk;
static struct table tables[MOST_THREADS];

static void fail(const char *what) { perror(what); exit(1); }

static void *get(size_t size) {
    void *memory = calloc(1, size);
    if (!memory) fail("memory");
    return memory;
}

static uint64_t hash_of(const unsigned char *word, size_t length) {
    uint64_t hash = length * 0x9e3779b97f4a7c15u, eight;
    for (; length >= 8; word += 8, length -= 8) {
        memcpy(&eight, word, 8);
        hash = (hash ^ eight) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
    }
    eight = 0;
    for (size_t at = 0; at < length; at++) eight |= (uint64_t)word[at] << (8 * at);
    hash = (hash ^ eight) * 0xff51afd7ed558ccdu;
    return hash ^ hash >> 32;
}

static const unsigned char *keep(struct table *table, const unsigned char *word, size_t length) {
    if (table->left < length) {
        table->left = length > 1 << 20 ? length : 1 << 20;
        table->room = get(table->left);
    }
    unsigned char *kept = memcpy(table->room, word, length);
    table->room += length, table->left -= length;
    return kept;
}

static void grow(struct table *table) {
    struct entry *old = table->slots;
    size_t slots = old ? table->mask + 1 : 0, wanted = slots ? 2 * slots : FIRST_SLOTS;
    table->slots = get(wanted * sizeof *table->slots), table->mask = wanted - 1;
    for (size_t from = 0; from < slots; from++) {
        if (!old[from].count) continue;
        size_t at = old[from].hash & table->mask;
        while (table->slots[at].count) at = (at + 1) & table->mask;
        table->slots[at] = old[from];
    }
    free(old);
}

static void add(struct table *table, const unsigned char *word, size_t length, uint64_t hash, uint64_t count, int copy) {
    size_t at = hash & table->mask;
    for (struct entry *entry; (entry = &table->slots[at])->count; at = (at + 1) & table->mask)
        if (entry->hash == hash && entry->length == length && !memcmp(entry->word, word, length)) {
            entry->count += count;
            return;
        }
    table->slots[at] = (struct entry){copy ? keep(table, word, length) : word, hash, count, (uint32_t)length};
    if (2 * ++table->used > table->mask) grow(table);
}

/* A word belongs to the chunk in which it begins. */
static void count(struct table *table, struct chunk chunk) {
    const unsigned char *bytes = chunk.text->bytes, *at = bytes + chunk.from, *end = bytes + chunk.text->size;
    const unsigned char *last = (size_t)(end - at) > CHUNK ? at + CHUNK : end;
    if (chunk.from && !space[at[-1]]) while (at < last && !space[*at]) at++;
    for (;;) {
        while (at < last && space[*at]) at++;
        if (at >= last) return;
        const unsigned char *word = at;
        while (at < end && !space[*at]) at++;
        add(table, word, (size_t)(at - word), hash_of(word, (size_t)(at - word)), 1, 1);
    }
}

static void *work(void *table) {
    grow(table);
    for (size_t at; (at = atomic_fetch_add(&next_chunk, 1)) < chunk_count;) count(table, chunks[at]);
    return NULL;
}

static int by_word(const void *one, const void *other) {
    const struct entry *left = one, *right = other;
    int order = memcmp(left->word, right->word, left->length < right->length ? left->length : right->length);
    return order ? order : (left->length > right->length) - (left->length < right->length);
}

static void open_texts(char **names, int count, struct text *texts) {
    for (int at = 0; at < count; at++) {
        struct stat facts;
        int file = open(names[at], O_RDONLY);
        if (file < 0 || fstat(file, &facts)) fail(names[at]);
        texts[at].size = (size_t)facts.st_size;
        if (!facts.st_size) continue;
        texts[at].bytes = mmap(NULL, texts[at].size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
        if (texts[at].bytes == MAP_FAILED) fail(names[at]);
        close(file);
        chunk_count += (texts[at].size + CHUNK - 1) / CHUNK;
    }
}

int main(int argc, char **argv) {
    int threads = argc > 3 ? atoi(argv[1]) : 0;
    if (threads < 1 || threads > MOST_THREADS) return fprintf(stderr, "wordcount THREADS OUTPUT FILE...\n"), 2;
    for (const char *each = " \t\n\v\f\r"; *each; each++) space[(unsigned char)*each] = 1;
    struct text *texts = get((size_t)argc * sizeof *texts);
    open_texts(argv + 3, argc - 3, texts);
    chunks = get((chunk_count + 1) * sizeof *chunks);
    size_t made = 0;
    for (int at = 0; at < argc - 3; at++)
        for (size_t from = 0; from < texts[at].size; from += CHUNK) chunks[made++] = (struct chunk){&texts[at], from};
    pthread_t others[MOST_THREADS];
    for (int at = 1; at < threads; at++)
        if (pthread_create(&others[at], NULL, work, &tables[at])) fail("pthread_create");
    work(&tables[0]);
    for (int at = 1; at < threads; at++) {
        pthread_join(others[at], NULL);
        for (size_t slot = 0; slot <= tables[at].mask; slot++) {
            struct entry *entry = &tables[at].slots[slot];
            if (entry->count) add(&tables[0], entry->word, entry->length, entry->hash, entry->count, 0);
        }
    }
    struct entry *slots = tables[0].slots;
    size_t words = 0;
    for (size_t slot = 0; slot <= tables[0].mask; slot++)
        if (slots[slot].count) slots[words++] = slots[slot];
    qsort(slots, words, sizeof *slots, by_word);
    FILE *out = fopen(argv[2], "wb");
    if (!out) fail(argv[2]);
    for (size_t at = 0; at < words; at++) {
        fwrite(slots[at].word, 1, slots[at].length, out);
        fprintf(out, "\t%llu\n", (unsigned long long)slots[at].count);
    }
    if (fclose(out)) fail(argv[2]);
    return 0;
}
