/* What is kept of each task.
 *
 * The verifier follows a static function on each way to it, and one that is not static only once,
 * for any argument: these take half as long to load.
 */
#pragma once

static __always_inline bool is_excluded(u32 pid)
{
	for (int i = 0; i < EXCLUDED; i++)
		if (config.excluded[i] == pid)
			return true;
	return false;
}

static __always_inline struct slot *slot_of(u64 at)
{
	u32 index = (u32)(at >> 6) * 0x9e3779b1U >> (32 - SLOT_BITS);

	return bpf_map_lookup_elem(&slots, &index);
}

/* The state of the current task if it has one. */
static __always_inline struct task_state *known_state(const struct self *self)
{
	struct slot *slot = slot_of(self->at);

	if (slot && slot->owner == self->at)
		return &slot->state;
	return bpf_task_storage_get(&tasks, bpf_get_current_task_btf(), 0, 0);
}

/* The same of a task that has no slot. A slot is its own until it ends, and no other task's. */
static __noinline struct task_state *new_state(u64 at)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = bpf_task_storage_get(&tasks, task, 0, 0);
	struct slot *slot = slot_of(at);

	/* One that finds a slot free moves in, but not in the midst of a call. */
	if (state && state->is_in_call)
		return state;
	if (slot && !slot->owner && !__sync_val_compare_and_swap(&slot->owner, 0, at)) {
		__builtin_memset(&slot->state, 0, sizeof(slot->state));
		return &slot->state;
	}
	return bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

/* Who the current task is: again when a thread that called execve took the pid of its leader. */
__noinline int identify(struct task_state *state)
{
	struct task_struct *task = bpf_get_current_task_btf();

	if (!state)
		return 0;
	if (level < 0)
		find_level(task);
	state->pid = number_of(BPF_CORE_READ(task, group_leader, thread_pid));
	state->tid = number_of(BPF_CORE_READ(task, thread_pid));
	state->kernel_pid = task->pid;
	state->tree_version = 0;
	if (is_excluded(state->pid))
		state->pid = 0;
	return 0;
}

/* What is known of the current task; none of those outside the reader's pid namespace. */
static __always_inline struct task_state *state_of(const struct self *self)
{
	struct slot *slot = slot_of(self->at);
	struct task_state *state;

	if (slot && slot->owner == self->at) {
		state = &slot->state;
	} else {
		state = new_state(self->at);
		if (!state) {
			COUNT(entries_lost);
			return 0;
		}
	}
	if (state->kernel_pid != self->task->pid)
		identify(state);
	return state->pid ? state : 0;
}
