/* Processes: told again when what is known of one has changed. */
#pragma once

static __always_inline struct kernfs_node *kernfs_parent(struct kernfs_node *node)
{
	struct kernfs_node___since_6_15 *since = (void *)node;
	struct kernfs_node___before_6_15 *before = (void *)node;

	if (bpf_core_field_exists(since->__parent))
		return BPF_CORE_READ(since, __parent);
	return BPF_CORE_READ(before, parent);
}

struct cgroup_climb {
	struct cgroup_record *to;
	u64 node;
};

static long cgroup_step(u32 i, struct cgroup_climb *climb)
{
	struct kernfs_node *node = (void *)climb->node;
	struct kernfs_node *parent = kernfs_parent(node);
	u32 bytes = climb->to->head.bytes;
	long read;

	if (!parent)
		return 1;
	read = bpf_probe_read_kernel_str(&climb->to->text[bytes & (TEXT_BYTES - 1)], 256,
					 BPF_CORE_READ(node, name));
	if (read <= 0)
		return 1;
	climb->to->head.bytes = bytes + read;
	climb->node = (u64)parent;
	return bytes + read >= TEXT_BYTES;
}

__noinline u32 cgroup_id(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct kernfs_node *node = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn);
	u64 key = mix(mix(config.seed + 3, (u64)node), BPF_CORE_READ(node, id));
	u32 id = told_id(key, TEXTS), bytes;
	struct room *r = room();

	if (id || !r)
		return id;
	struct cgroup_record *to = &r->cgroup;
	struct cgroup_climb climb = { to, (u64)node };

	to->head.bytes = 0;
	bpf_loop(NAMES, cgroup_step, &climb, 0);
	bytes = to->head.bytes & (2 * TEXT_BYTES - 1);
	if (bytes > TEXT_BYTES + 256)
		bytes = TEXT_BYTES + 256;
	to->head.kind = KIND_CGROUP;
	to->head.is_cut = 0;
	to->head.bytes = bytes;
	to->head.id = new_id(TEXTS);
	return tell(key, to->head.id, to, offsetof(struct cgroup_record, text) + bytes);
}

static __always_inline u64 process_key(const struct self *self)
{
	struct task_struct *task = self->task;
	const struct cred *cred = task->cred;
	u64 key = mix(config.seed + 4, task->start_boottime);
	const u64 *comm = (const u64 *)task->comm;

	key = mix(mix(key, comm[0]), comm[1]);
	key = mix(key, (u64)task->tgid << 32 | task->self_exec_id);
	key = mix(key, (u64)cred->euid.val << 32 | cred->egid.val);
	key = mix(key, (u64)task->real_parent->tgid);
	key = mix(key, task->signal->pids[PIDTYPE_SID]->numbers[0].nr);
	key = mix(key, task->cgroups->dfl_cgrp->kn->id);
	if (bpf_core_field_exists(task->loginuid))
		key = mix(key, task->loginuid.val);
	return mix(key, cwd_key(self));
}

static __always_inline u32 tty_of(struct task_struct *task)
{
	struct tty_struct *tty = task->signal->tty;
	struct tty_driver *driver = tty->driver;

	if (!tty)
		return 0;
	return (u32)driver->major << 20 | (u32)(driver->minor_start + tty->index);
}

/* Tell what the current process is; the id of that. */
__noinline u32 tell_process(struct task_state *state, u64 key)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct room *r = room();

	if (!state || !r)
		return 0;
	struct process_record *to = &r->process;

	__builtin_memset(to, 0, sizeof(*to));
	to->head.kind = KIND_PROCESS;
	to->pid = state->pid;
	to->ppid = number_of(BPF_CORE_READ(task, real_parent, group_leader, thread_pid));
	to->vpid = innermost_number(BPF_CORE_READ(task, group_leader, thread_pid));
	to->uid = task->cred->euid.val;
	to->gid = task->cred->egid.val;
	to->loginuid = bpf_core_field_exists(task->loginuid) ? task->loginuid.val : ~0U;
	to->sid = number_of(BPF_CORE_READ(task, signal, pids[PIDTYPE_SID]));
	to->tty = tty_of(task);
	to->start_boottime_ns = task->group_leader->start_boottime;
	to->exe = file_id((u64)BPF_CORE_READ(task, mm, exe_file));
	to->cwd = cwd_id();
	to->cgroup = cgroup_id();
	if (config.options & CMDLINES)
		to->cmdline = take_range(BPF_CORE_READ(task, mm, arg_start),
					 BPF_CORE_READ(task, mm, arg_end));
	if (config.options & ENVIRONS)
		to->environ = take_range(BPF_CORE_READ(task, mm, env_start),
					 BPF_CORE_READ(task, mm, env_end));
	READ(to->comm, task->comm);
	to->head.id = new_id(PROCESSES);
	if (bpf_ringbuf_output(&records, to, sizeof(*to), BPF_RB_NO_WAKEUP)) {
		COUNT(names_lost);
		return 0;
	}
	state->process_key = key;
	state->process = to->head.id;
	state->cwd = to->cwd;
	return to->head.id;
}

/* The id of what the current process is now. */
static __always_inline u32 process_id(const struct self *self, struct task_state *state)
{
	u64 key = process_key(self);

	if (state->process_key == key && state->process >= config.floor[PROCESSES] &&
	    state->process)
		return state->process;
	return tell_process(state, key);
}
