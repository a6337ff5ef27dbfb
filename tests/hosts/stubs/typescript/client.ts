// A client of Hostler made of stubs of protos/ and public packages: no code of Hostler's.
//
// Arguments: address, name of the host, folder with ca.pem, user.pem and user.key, name of the
// namespace. The stubs are in gen/ beside this file. Tells on standard output, a JSON line each,
// what it did; after each it waits for a line on standard input.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { DescMessage, DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";
import type { Change, ChangeOptions } from "./gen/hostler/api/common/v1/change_pb.js";
import { OutcomeSchema } from "./gen/hostler/api/common/v1/change_pb.js";
import { HostService } from "./gen/hostler/api/common/v1/host_pb.js";
import { CounterService } from "./gen/hostler/api/netns/v1/counter_pb.js";
import type { Namespace } from "./gen/hostler/api/netns/v1/namespace_pb.js";
import { NamespaceService } from "./gen/hostler/api/netns/v1/namespace_pb.js";

const [address, hostName, pki, name] = process.argv.slice(2) as [string, string, string, string];
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function tell(did: string, what: object): Promise<void> {
  process.stdout.write(JSON.stringify({ did, ...what }) + "\n");
  await lines.next();
}

const [ca, key, certificate] = ["ca.pem", "user.key", "user.pem"].map((f) => readFileSync(`${pki}/${f}`));
const client = new grpc.Client(address, grpc.credentials.createSsl(ca, key, certificate), {
  "grpc.ssl_target_name_override": hostName,
});

// A method as the stubs describe it: what it takes, what it answers.
type Method<I extends DescMessage, O extends DescMessage> = DescMethod & { input: I; output: O };

function path(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

const writer = <I extends DescMessage>(method: Method<I, DescMessage>) =>
  (message: MessageShape<I>) => Buffer.from(toBinary(method.input, message));
const reader = <O extends DescMessage>(method: Method<DescMessage, O>) =>
  (bytes: Buffer) => fromBinary(method.output, bytes);

const within = () => ({ deadline: Date.now() + 30_000 });

function call<I extends DescMessage, O extends DescMessage>(
  method: Method<I, O>,
  fields: MessageInitShape<I>,
): Promise<MessageShape<O>> {
  return new Promise((resolve, reject) => {
    const done = (error: grpc.ServiceError | null, answer?: MessageShape<O>) =>
      answer === undefined ? reject(error) : resolve(answer);
    const request = create(method.input, fields);
    const [write, read] = [writer(method), reader(method)];
    client.makeUnaryRequest(path(method), write, read, request, new grpc.Metadata(), within(), done);
  });
}

function stream<I extends DescMessage, O extends DescMessage>(
  method: Method<I, O>,
  fields: MessageInitShape<I>,
): AsyncIterable<MessageShape<O>> {
  const request = create(method.input, fields);
  const [write, read] = [writer(method), reader(method)];
  return client.makeServerStreamRequest(
    path(method), write, read, request, new grpc.Metadata(), within(),
  );
}

function createNamespace(namespace: Partial<Namespace>, options: Partial<ChangeOptions>) {
  const { name } = namespace;
  const { validateOnly, planHash } = options;
  const change = { requestId: randomUUID(), validateOnly, planHash };
  return call(NamespaceService.method.createNamespace, { namespace: { name }, change });
}

// The rich details of an error: the reason, and which fields are wrong.
function decode(error: grpc.ServiceError) {
  const details = error.metadata.get("grpc-status-details-bin")[0] as Buffer;
  const status = fromBinary(StatusSchema, details);
  const unpack = <D extends DescMessage>(schema: D): MessageShape<D> | undefined =>
    status.details.map((d) => anyUnpack(d, schema)).find(Boolean);
  const info = unpack(ErrorInfoSchema);
  return {
    code: grpc.status[error.code],
    reason: info?.reason,
    domain: info?.domain,
    fields: (unpack(BadRequestSchema)?.fieldViolations ?? []).map((v) => v.field),
  };
}

const outcome = (change: Change) => OutcomeSchema.value[change.outcome].name;

function present<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`the answer has no ${what}`);
  return value;
}

const host = present((await call(HostService.method.getHost, {})).host, "host");
await tell("host", { hostname: host.hostname, domain: host.domain, caller: host.caller });

const planned = present((await createNamespace({ name }, { validateOnly: true })).change, "change");
const plan = present(planned.plan, "plan");
await tell("plan", { outcome: outcome(planned), steps: plan.steps.map((s) => s.kind) });
const done = present((await createNamespace({ name }, { planHash: plan.hash })).change, "change");
await tell("create", { outcome: outcome(done), changed: done.changed });

const { namespaces } = await call(NamespaceService.method.listNamespaces, { managedOnly: true });
await tell("list", { names: namespaces.map((n) => n.name) });

const readings: object[] = [];
const watched = { namespace: name, interval: { nanos: 200_000_000 }, count: 2 };
for await (const reading of stream(CounterService.method.watchCounters, watched)) {
  const links = reading.links.map((link) => link.counters?.ifname);
  readings.push({ seq: Number(reading.seq), links });
}
await tell("watch", { readings });

await createNamespace({ name: "not a name" }, {}).catch((error) => tell("error", decode(error)));

const deleted = await call(NamespaceService.method.deleteNamespace, { name });
await tell("delete", { changed: deleted.change?.changed });

client.close();
process.exit(0);
