// A client of Hostler made of stubs of protos/ and public packages: no code of Hostler's.
//
// Arguments: address, name of the host, folder with ca.pem, user.pem and user.key, name of the
// namespace. The stubs are in gen/ beside this file. Tells on standard output, a JSON line each,
// what it did; after each it waits for a line on standard input.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";
import { OutcomeSchema } from "./gen/hostler/api/common/v1/change_pb.js";
import { HostService } from "./gen/hostler/api/common/v1/host_pb.js";
import { CounterService } from "./gen/hostler/api/netns/v1/counter_pb.js";
import { NamespaceService } from "./gen/hostler/api/netns/v1/namespace_pb.js";

const [address, hostName, pki, name] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function tell(did, what) {
  process.stdout.write(JSON.stringify({ did, ...what }) + "\n");
  await lines.next();
}

const [ca, key, certificate] = ["ca.pem", "user.key", "user.pem"].map((f) => readFileSync(`${pki}/${f}`));
const client = new grpc.Client(address, grpc.credentials.createSsl(ca, key, certificate), {
  "grpc.ssl_target_name_override": hostName,
});

function shape(method) {
  return [
    `/${method.parent.typeName}/${method.name}`,
    (message) => Buffer.from(toBinary(method.input, message)),
    (bytes) => fromBinary(method.output, bytes),
  ];
}

const within = () => ({ deadline: Date.now() + 30_000 });

function call(method, fields) {
  return new Promise((resolve, reject) => {
    const done = (error, answer) => (error ? reject(error) : resolve(answer));
    const request = create(method.input, fields);
    client.makeUnaryRequest(...shape(method), request, new grpc.Metadata(), within(), done);
  });
}

function stream(method, fields) {
  const request = create(method.input, fields);
  return client.makeServerStreamRequest(...shape(method), request, new grpc.Metadata(), within());
}

function createNamespace(namespace, options) {
  const change = { requestId: randomUUID(), ...options };
  return call(NamespaceService.method.createNamespace, { namespace, change });
}

// The rich details of an error: the reason, and which fields are wrong.
function decode(error) {
  const status = fromBinary(StatusSchema, error.metadata.get("grpc-status-details-bin")[0]);
  const unpack = (schema) => status.details.map((d) => anyUnpack(d, schema)).find(Boolean);
  const info = unpack(ErrorInfoSchema);
  return {
    code: grpc.status[error.code],
    reason: info.reason,
    domain: info.domain,
    fields: (unpack(BadRequestSchema)?.fieldViolations ?? []).map((v) => v.field),
  };
}

const outcome = (change) => OutcomeSchema.value[change.outcome].name;

const { host } = await call(HostService.method.getHost, {});
await tell("host", { hostname: host.hostname, domain: host.domain, caller: host.caller });

const planned = (await createNamespace({ name }, { validateOnly: true })).change;
await tell("plan", { outcome: outcome(planned), steps: planned.plan.steps.map((s) => s.kind) });
const done = (await createNamespace({ name }, { planHash: planned.plan.hash })).change;
await tell("create", { outcome: outcome(done), changed: done.changed });

const { namespaces } = await call(NamespaceService.method.listNamespaces, { managedOnly: true });
await tell("list", { names: namespaces.map((n) => n.name) });

const readings = [];
const watched = { namespace: name, interval: { nanos: 200_000_000 }, count: 2 };
for await (const reading of stream(CounterService.method.watchCounters, watched)) {
  const links = reading.links.map((link) => link.counters.ifname);
  readings.push({ seq: Number(reading.seq), links });
}
await tell("watch", { readings });

await createNamespace({ name: "not a name" }, {}).catch((error) => tell("error", decode(error)));

const deleted = await call(NamespaceService.method.deleteNamespace, { name });
await tell("delete", { changed: deleted.change.changed });

client.close();
process.exit(0);
