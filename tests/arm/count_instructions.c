/* A TCG plugin for qemu-user: counts the instructions that the guest executes.
 *
 * The guest reads the count by a system call that no kernel has, syscall(MARK, value): for each one
 * a line "value count" goes to the file named by the plugin's argument out=FILE. What is between two
 * marks is thus counted alone, without the start of the interpreter.
 *
 * Debian ships qemu without qemu-plugin.h, so the few declarations needed are here; they are the
 * same in every version of the interface (QEMU manual, "TCG Plugins"). API is the number of the
 * version to claim, which qemu compares with those it accepts. */
#include <inttypes.h>
#include <stdio.h>
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

int qemu_plugin_version = API;

static uint64_t count; /* of all threads */
static FILE *out;

static void on_execution(unsigned vcpu, void *instructions) {
    __atomic_fetch_add(&count, (uintptr_t)instructions, __ATOMIC_RELAXED);
}

static void on_translation(plugin_id id, void *tb) {
    void *instructions = (void *)(uintptr_t)qemu_plugin_tb_n_insns(tb);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_execution, NO_REGISTERS, instructions);
}

static void on_system_call(plugin_id id, unsigned vcpu, int64_t number, uint64_t value, uint64_t b,
                           uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
    if (number == MARK) {
        fprintf(out, "%" PRIu64 " %" PRIu64 "\n", value, count);
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
