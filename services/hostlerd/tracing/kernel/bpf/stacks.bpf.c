/* Writes the kernel stacks of tasks, one task after the other, as text.
 *
 * /proc/PID/stack has the same and wants CAP_SYS_ADMIN; this wants CAP_BPF and CAP_PERFMON. The
 * iterator shows the tasks of its reader's pid namespace alone. Source: bpf-helpers(7).
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

#define FRAMES 32
#define LEVELS 32

u32 pid_namespace SEC(".data.config");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, u8);
} wanted SEC(".maps");

/* Too large for a stack of BPF; an iterator has one reader at a time. */
static u64 frames[FRAMES];

/* The tid of a task in the reader's pid namespace, 0 if it is not there. */
static __always_inline u32 tid_of(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	u32 at = __builtin_preserve_field_info(pid->numbers, BPF_FIELD_BYTE_OFFSET);
	u32 deepest = BPF_CORE_READ(pid, level);

	for (u32 i = 0; i < LEVELS && i <= deepest; i++) {
		struct upid upid = {};

		bpf_probe_read_kernel(&upid, sizeof(upid), (void *)pid + at + i * sizeof(upid));
		if (BPF_CORE_READ(upid.ns, ns.inum) == pid_namespace)
			return upid.nr;
	}
	return 0;
}

SEC("iter/task")
int stacks(struct bpf_iter__task *context)
{
	struct seq_file *to = context->meta->seq;
	struct task_struct *task = context->task;
	long bytes;
	u32 tid;

	if (!task)
		return 0;
	tid = tid_of(task);
	if (!bpf_map_lookup_elem(&wanted, &tid))
		return 0;
	bytes = bpf_get_task_stack(task, frames, sizeof(frames), 0);
	BPF_SEQ_PRINTF(to, "%u\n", tid);
	for (u32 i = 0; i < FRAMES; i++) {
		if ((long)(i * sizeof(u64)) >= bytes)
			break;
		BPF_SEQ_PRINTF(to, " %pB\n", frames[i]);
	}
	return 0;
}
