/* The tracer: one record for each system call, made when it ends.
 *
 * Source: Documentation/bpf/ringbuf.rst; include/trace/events/syscalls.h.
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>

typedef __u8 u8;
typedef __s8 s8;
typedef __u16 u16;
typedef __u32 u32;
typedef __s32 s32;
typedef __u64 u64;
typedef __s64 s64;

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "kernel.h"
#include "records.h"
#include "state.h"
#include "names.h"
#include "data.h"
#include "process.h"
#include "tasks.h"

char LICENSE[] SEC("license") = "GPL";

static __always_inline bool is_in_tree(struct task_state *state)
{
	u32 version = config.tree_version;

	if (state->tree_version != version) {
		state->is_in_tree = !!bpf_map_lookup_elem(&tree, &state->pid);
		state->tree_version = version;
	}
	return state->is_in_tree;
}

static __always_inline bool passes(const struct self *self, struct task_state *state)
{
	u32 options = config.options;

	if (options & BY_TREE && !is_in_tree(state))
		return false;
	if (options & BY_CGROUP && bpf_current_task_under_cgroup(&cgroup, 0) != 1)
		return false;
	return !config.net_namespace ||
	       self->task->nsproxy->net_ns->ns.inum == config.net_namespace;
}

/* Whether the current task has a name that is wanted now, at the end of its call. */
static __always_inline bool has_name(const struct self *self, struct task_state *state)
{
	const u64 *comm = (const u64 *)self->task->comm;
	u64 first = comm[0], second = comm[1];

	if (!(config.options & BY_COMM))
		return true;
	if (state->comm[0] != first || state->comm[1] != second) {
		state->comm[0] = first;
		state->comm[1] = second;
		state->has_name = !!bpf_map_lookup_elem(&comms, state->comm);
	}
	return state->has_name;
}

static __always_inline void take_args(struct task_state *state, struct pt_regs *regs)
{
	if (state->is_32_bit) {
		state->args[0] = (u32)regs->bx;
		state->args[1] = (u32)regs->cx;
		state->args[2] = (u32)regs->dx;
		state->args[3] = (u32)regs->si;
		state->args[4] = (u32)regs->di;
		state->args[5] = (u32)regs->bp;
	} else {
		state->args[0] = regs->di;
		state->args[1] = regs->si;
		state->args[2] = regs->dx;
		state->args[3] = regs->r10;
		state->args[4] = regs->r8;
		state->args[5] = regs->r9;
	}
}

static __always_inline struct call *call_of(u32 is_32_bit, u32 number)
{
	if (number >= CALLS / 2)
		return 0;
	return &config.calls[(number + (is_32_bit ? CALLS / 2 : 0)) & (CALLS - 1)];
}

static __always_inline u64 argument(struct task_state *state, u32 index)
{
	index = (index - 1) & 7;
	return index < 6 ? state->args[index] : 0;
}

/* The id of a file; where it is the one that the fd was last time, at half the price. */
static __always_inline u32 file_id_again(const struct self *self, struct task_state *state,
					 s32 fd, u64 at)
{
	struct file_seen *last = &state->seen[fd & (SEEN - 1)];
	u64 dentry = LOOK_AT(self, struct file, at, f_path.dentry);
	u64 inode = LOOK_AT(self, struct file, at, f_inode);
	struct file_seen now = { .file = at, .dentry = dentry, .inode = inode };

	now.inode_number = LOOK(struct inode, inode, i_ino);
	now.name_hash = LOOK(struct dentry, dentry, d_name.hash);
	now.root_number = root_number(self);
	if ((LOOK(struct inode, inode, i_mode) & S_IFMT) == S_IFSOCK)
		now.socket = socket_key(self, config.seed, sock_of(self, at));
	if (last->id && last->id >= config.floor[FILES] && now.file == last->file &&
	    now.dentry == last->dentry && now.inode == last->inode &&
	    now.inode_number == last->inode_number && now.name_hash == last->name_hash &&
	    now.root_number == last->root_number && now.socket == last->socket)
		return last->id;
	now.id = file_id(at);
	*last = now;
	return now.id;
}

/* Which file the call is about: of its first fd, or of the fd that it made. */
static __always_inline void find_file(const struct self *self, struct task_state *state,
				      struct call *call, s64 result)
{
	u64 file;

	state->fd = -1;
	state->file = 0;
	if (call->flags & FD_IS_RESULT)
		state->fd = result >= 0 ? (s32)result : -1;
	else if (call->fd)
		state->fd = (s32)argument(state, call->fd);
	if (state->fd < 0)
		return;
	file = file_of_fd(self, state->fd);
	if (file && call->flags & IS_ACCEPT) {
		u64 sk = sock_of(self, file);
		u8 one = 1;

		bpf_map_update_elem(&accepted, &sk, &one, BPF_ANY);
	}
	state->file = file ? file_id_again(self, state, state->fd, file) : 0;
}

/* The id of a path argument; that of the process has been asked for, which has the cwd. */
static __always_inline u32 path_of(const struct self *self, struct task_state *state, u8 path,
				   u8 dirfd)
{
	u32 base = state->base ? state->base : state->cwd;
	s32 fd = dirfd ? (s32)argument(state, dirfd) : AT_FDCWD;

	if (!path)
		return 0;
	if (fd != AT_FDCWD) {
		u64 file = file_of_fd(self, fd);

		base = file ? file_id_again(self, state, fd, file) : 0;
	}
	return path_id(argument(state, path), base, 0);
}

static __always_inline void emit(const struct self *self, struct task_state *state,
				 struct call *call, u32 flags, s64 result, u64 latency_ns)
{
	u32 process = process_id(self, state), data = 0;
	u32 path = state->path ? state->path : path_of(self, state, call->path, call->dirfd);
	u32 path2 = path_of(self, state, call->path2, call->dirfd2);
	struct event *event;

	if (call->data && result > 0) {
		if (config.payload_bytes)
			data = take_data(state, call->data, result, &flags);
		else
			flags |= DATA_WITHHELD;
	}
	COUNT(seen);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		COUNT(lost);
		return;
	}
	event->entry_ns = state->entry_ns;
	event->latency_ns = latency_ns;
	__builtin_memcpy(event->args, state->args, sizeof(event->args));
	event->result = result;
	event->tid = state->tid;
	event->fd = state->fd;
	event->syscall = state->syscall;
	event->cpu = bpf_get_smp_processor_id();
	event->flags = flags | (state->is_32_bit ? IS_32_BIT : 0) |
		       ((path | path2) & CUT ? PATH_CUT : 0);
	event->process = process;
	event->file = state->file;
	event->path = path & ~CUT;
	event->path2 = path2 & ~CUT;
	event->data = data;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

/* Whether nobody wants calls of this number, be they those of a 64-bit or of a 32-bit program. */
static __always_inline bool is_unwanted(u32 number)
{
	if (number >= CALLS / 2)
		return true;
	return !((config.calls[number].flags | config.calls[number + CALLS / 2].flags) & WANTED);
}

SEC("tp_btf/sys_enter")
int BPF_PROG(on_enter, struct pt_regs *regs, long id)
{
	u32 number = id & ~X32_BIT, is_32_bit;
	struct task_state *state;
	struct call *call;
	struct self self;

	if (!config.is_on || is_unwanted(number))
		return 0;
	self = self_of();
	is_32_bit = self.task->thread_info.status & TS_COMPAT;
	call = call_of(is_32_bit, number);
	if (!call || !(call->flags & WANTED))
		return 0;
	state = state_of(&self);
	if (!state || !passes(&self, state))
		return 0;
	state->is_32_bit = !!is_32_bit;
	take_args(state, regs);
	state->syscall = number;
	state->is_in_call = 1;
	state->path = 0;
	state->base = 0;
	/* A path is read when the call returns: then its page is sure to be there. */
	if (call->flags & MOVES_CWD) {
		process_id(&self, state);
		state->base = state->cwd;
	}
	/* What close closes is gone when it returns. */
	if (call->flags & FD_AT_ENTRY)
		find_file(&self, state, call, 0);
	state->entry_ns = bpf_ktime_get_ns();
	if (call->flags & NO_RETURN) {
		state->is_in_call = 0;
		state->fd = -1;
		state->file = 0;
		if (!(config.options & FAILED_ONLY) && !config.latency_ns &&
		    has_name(&self, state))
			emit(&self, state, call, UNFINISHED, 0, 0);
	}
	return 0;
}

/* Take what can be taken of a call whose beginning was not seen; whether it is wanted. */
static __noinline bool begin_late(struct task_state *state, struct pt_regs *regs)
{
	struct self self = self_of();
	struct call *call;

	state->is_32_bit = !!(self.task->thread_info.status & TS_COMPAT);
	state->syscall = regs->orig_ax & ~X32_BIT;
	call = call_of(state->is_32_bit, state->syscall);
	if (!call || !(call->flags & WANTED))
		return false;
	take_args(state, regs);
	state->path = state->base = 0;
	return true;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_exit, struct pt_regs *regs, long result)
{
	u64 number = regs->orig_ax, now;
	struct task_state *state;
	struct call *call;
	struct self self;
	u32 flags = 0;

	/* rt_sigreturn leaves -1 there; of all others the number is that of their beginning. */
	if (!config.is_on || (number != ~0ULL && is_unwanted(number & ~X32_BIT)))
		return 0;
	self = self_of();
	state = state_of(&self);
	if (!state)
		return 0;
	/* It began before the trace did, or in the parent: a child returns from clone. */
	if (!state->is_in_call) {
		if (!passes(&self, state) || !begin_late(state, regs))
			return 0;
		flags = ENTRY_LOST;
	}
	call = call_of(state->is_32_bit, state->syscall);
	state->is_in_call = 0;
	if (!call)
		return 0;
	if (!has_name(&self, state)) {
		/* It is told who it is all the same, as the parent of others. */
		process_id(&self, state);
		return 0;
	}
	if (config.options & FAILED_ONLY && !(result < 0 && result >= -4095))
		return 0;
	now = bpf_ktime_get_ns();
	if (flags)
		state->entry_ns = now;
	if (now - state->entry_ns < config.latency_ns)
		return 0;
	if (flags || !(call->flags & FD_AT_ENTRY))
		find_file(&self, state, call, result);
	emit(&self, state, call, flags, result, now - state->entry_ns);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct self self = self_of();
	struct task_state *state;

	if (!config.is_on)
		return 0;
	state = known_state(&self);
	/* The memory of the caller, where the path was, is gone when the call returns. */
	if (state && state->is_in_call)
		state->path = path_id((u64)BPF_CORE_READ(bprm, filename), cwd_id(), 1);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	u32 of_parent = number_of(BPF_CORE_READ(parent, group_leader, thread_pid));
	u32 of_child = number_of(BPF_CORE_READ(child, group_leader, thread_pid));
	u8 one = 1;

	if (config.options & BY_TREE && of_child && of_parent != of_child &&
	    bpf_map_lookup_elem(&tree, &of_parent))
		bpf_map_update_elem(&tree, &of_child, &one, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_process_exit, struct task_struct *task)
{
	u32 pid = number_of(BPF_CORE_READ(task, group_leader, thread_pid));
	u64 at = bpf_get_current_task();
	struct slot *slot = slot_of(at);

	if (slot && slot->owner == at)
		slot->owner = 0;
	/* The number may be given to another process from now on. */
	if (config.options & BY_TREE && task->signal->live.counter == 0)
		bpf_map_delete_elem(&tree, &pid);
	return 0;
}
