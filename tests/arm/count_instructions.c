/* A TCG plugin for qemu-user: counts the instructions that the guest executes, and of which kind.
 *
 * The guest reads the count by a system call that no kernel has, syscall(MARK, value): for each one
 * a line "value all vector loads stores" goes to the file named by the plugin's argument out=FILE.
 * What is between two marks is thus counted alone, without the start of the interpreter.
 *
 * Debian ships qemu without qemu-plugin.h, so the few declarations needed are here; they are the
 * same in every version of the interface (QEMU manual, "TCG Plugins"). API is the number of the
 * version to claim, which qemu compares with those it accepts. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK 0x5C0DE
#define NO_REGISTERS 0

typedef uint64_t plugin_id;
typedef void tb_translated(plugin_id, void *tb);
typedef void tb_executed(unsigned vcpu, void *data);
typedef void system_called(plugin_id, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, tb_translated *);
void qemu_plugin_register_vcpu_tb_exec_cb(void *tb, tb_executed *, int flags, void *data);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, system_called *);
size_t qemu_plugin_tb_n_insns(const void *tb);
void *qemu_plugin_tb_get_insn(const void *tb, size_t index);
#if API < 3
const void *qemu_plugin_insn_data(const void *insn);
#else
size_t qemu_plugin_insn_data(const void *insn, void *into, size_t bytes);
#endif

int qemu_plugin_version = API;

enum { ALL, VECTOR, LOADS, STORES, KINDS };

static uint64_t counts[KINDS]; /* of all threads */
static FILE *out;

static uint32_t word_of(const void *insn) {
    uint32_t word;
#if API < 3
    memcpy(&word, qemu_plugin_insn_data(insn), sizeof word);
#else
    qemu_plugin_insn_data(insn, &word, sizeof word);
#endif
    return word;
}

/* By the top-level encoding (Arm Architecture Reference Manual, C4.1): bits 28 to 25 are x1x0 for
 * loads and stores, of which bit 22 tells the loads, and x111 for floating point and vectors. */
static int kind_of(uint32_t word) {
    if ((word >> 25 & 5) == 4)
        return word >> 22 & 1 ? LOADS : STORES;
    return (word >> 25 & 7) == 7 ? VECTOR : ALL;
}

static void on_execution(unsigned vcpu, void *block) {
    for (int kind = 0; kind < KINDS; kind++)
        __atomic_fetch_add(&counts[kind], ((uint64_t *)block)[kind], __ATOMIC_RELAXED);
}

static void on_translation(plugin_id id, void *tb) {
    uint64_t *block = calloc(KINDS, sizeof *block); /* as long as the program runs */
    block[ALL] = qemu_plugin_tb_n_insns(tb);
    for (size_t i = 0; i < block[ALL]; i++) {
        int kind = kind_of(word_of(qemu_plugin_tb_get_insn(tb, i)));
        if (kind != ALL)
            block[kind]++;
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_execution, NO_REGISTERS, block);
}

static void on_system_call(plugin_id id, unsigned vcpu, int64_t number, uint64_t value, uint64_t b,
                           uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
    if (number == MARK) {
        fprintf(out, "%" PRIu64, value);
        for (int kind = 0; kind < KINDS; kind++)
            fprintf(out, " %" PRIu64, counts[kind]);
        fprintf(out, "\n");
        fflush(out);
    }
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "out=", 4) == 0)
            out = fopen(argv[i] + 4, "w");
    if (out == NULL) {
        fprintf(stderr, "count_instructions: give out=FILE\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
    return 0;
}
