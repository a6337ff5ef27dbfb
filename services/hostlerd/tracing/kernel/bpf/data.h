/* What calls carry, and the command line and environment of processes: only where it is allowed. */
#pragma once

static __always_inline struct data_record *data_room(void)
{
	u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&data_rooms, &cpu);
}

/* Append memory of the current process, up to `limit` bytes in all; 1 if no more is to be had. */
static __always_inline u32 append(struct data_record *to, u64 at, u64 bytes, u32 limit)
{
	u32 used = to->head.bytes;
	u32 more = limit > used ? limit - used : 0;

	if (bytes < more)
		more = bytes;
	more &= DATA_BYTES;
	if (bpf_probe_read_user(&to->text[used & DATA_BYTES], more, (void *)at))
		return 1;
	to->head.bytes = used + more;
	return used + more >= limit;
}

/* Tell what was appended; it has no key, for it is never told again. */
static __always_inline u32 tell_data(struct data_record *to, u32 kind)
{
	u32 bytes = to->head.bytes & DATA_BYTES;

	to->head.kind = kind;
	to->head.is_cut = 0;
	to->head.id = new_id(TEXTS);
	if (bpf_ringbuf_output(&records, to, sizeof(to->head) + bytes, BPF_RB_NO_WAKEUP)) {
		COUNT(data_lost);
		return 0;
	}
	return to->head.id;
}

struct gathering {
	struct data_record *to;
	u64 iovec;
	u32 count, limit, is_32_bit;
};

static long gather_step(u32 i, struct gathering *gathering)
{
	u64 wide[2] = {};
	u32 narrow[2] = {};

	if (i >= gathering->count)
		return 1;
	if (gathering->is_32_bit) {
		bpf_probe_read_user(narrow, sizeof(narrow), (void *)gathering->iovec + i * 8);
		wide[0] = narrow[0];
		wide[1] = narrow[1];
	} else {
		bpf_probe_read_user(wide, sizeof(wide), (void *)gathering->iovec + i * 16);
	}
	return append(gathering->to, wide[0], wide[1], gathering->limit);
}

/* Where the iovecs of a msghdr are, and how many. */
static __always_inline void open_msghdr(struct gathering *gathering, u64 at)
{
	u64 wide[2] = {};
	u32 narrow[2] = {};

	if (gathering->is_32_bit) {
		bpf_probe_read_user(narrow, sizeof(narrow), (void *)at + 8);
		gathering->iovec = narrow[0];
		gathering->count = narrow[1];
	} else {
		bpf_probe_read_user(wide, sizeof(wide), (void *)at + 16);
		gathering->iovec = wide[0];
		gathering->count = wide[1];
	}
}

/* The id of what the call read or wrote; `flags` say where it is not all of it. */
__noinline u32 take_data(struct task_state *state, u32 data, s64 result, u32 *flags)
{
	struct data_record *to = data_room();
	struct gathering from = {};

	if (!to || !state || !flags)
		return 0;
	from.to = to;
	from.iovec = state->args[1];
	from.count = state->args[2];
	from.is_32_bit = state->is_32_bit;
	from.limit = config.payload_bytes;
	if (result < from.limit)
		from.limit = result;
	to->head.bytes = 0;
	if (data == DATA_MSGHDR)
		open_msghdr(&from, state->args[1]);
	if (data == DATA_BUFFER)
		append(to, state->args[1], result, from.limit);
	else
		bpf_loop(IOVECS, gather_step, &from, 0);
	if (to->head.bytes < result)
		*flags |= DATA_CUT;
	return to->head.bytes ? tell_data(to, KIND_DATA) : 0;
}

/* The id of a range of the memory of the current process, such as its arguments. */
static __noinline u32 take_range(u64 start, u64 end)
{
	struct data_record *to = data_room();

	if (!to || end <= start)
		return 0;
	to->head.bytes = 0;
	append(to, start, end - start, RANGE_BYTES);
	return to->head.bytes ? tell_data(to, KIND_DATA) : 0;
}
