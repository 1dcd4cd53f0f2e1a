// What a program that uses the npm package `consul` does with its agent; prints one JSON line.
"use strict";

const assert = require("node:assert/strict");
const path = require("node:path");

const [, , host, port, modules] = process.argv;
const { default: Consul, ...rest } = require(path.join(modules, "consul"));
const Client = Consul || rest.Consul || require(path.join(modules, "consul"));
const consul = new Client({ host, port: Number(port) });

const WAIT_MS = 20_000;

function nextChange(watch) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("no change was seen")), WAIT_MS);
    const done = (settle) => (value) => {
      clearTimeout(timer);
      settle(value);
    };
    watch.once("change", done(resolve));
    watch.once("error", done(reject));
  });
}

async function keys() {
  assert.equal(await consul.kv.set("npm/key", "first"), true);
  const row = await consul.kv.get("npm/key");
  assert.equal(row.Value, "first");
  assert.equal(await consul.kv.get("npm/missing"), undefined);
  // The library shows a JSON `false` as undefined.
  assert.ok(!(await consul.kv.set({ key: "npm/key", value: "no", cas: "1" })));
  assert.equal(
    await consul.kv.set({ key: "npm/key", value: "second", cas: String(row.ModifyIndex) }),
    true,
  );
  assert.deepEqual(await consul.kv.keys("npm/"), ["npm/key"]);
}

async function services() {
  const name = "npm-service";
  await consul.agent.service.register({
    name,
    id: name,
    port: 4242,
    tags: ["one", "two"],
    check: { ttl: "60s" },
  });
  const watch = consul.watch({
    method: consul.health.service,
    options: { service: name, passing: true, wait: "15s" },
  });
  assert.deepEqual(await nextChange(watch), []);
  const seen = nextChange(watch);
  await consul.agent.check.pass(`service:${name}`);
  const [entry] = await seen;
  watch.end();
  assert.equal(entry.Service.Port, 4242);
  assert.deepEqual(entry.Service.Tags, ["one", "two"]);
  const nodes = await consul.catalog.service.nodes(name);
  assert.equal(nodes.length, 1);
  assert.ok(name in (await consul.catalog.service.list()));
  assert.ok(name in (await consul.agent.service.list()));
  await consul.agent.service.deregister(name);
  assert.deepEqual(await consul.catalog.service.nodes(name), []);
}

async function locks() {
  const first = await consul.session.create({ ttl: "10s", lockdelay: "0s", name: "npm" });
  const second = await consul.session.create({ ttl: "10s", name: "npm" });
  const key = "npm/lock";
  assert.equal(await consul.kv.set({ key, value: "1", acquire: first.ID }), true);
  assert.ok(!(await consul.kv.set({ key, value: "2", acquire: second.ID })));
  assert.equal((await consul.kv.get(key)).Session, first.ID);
  assert.equal((await consul.session.renew(first.ID))[0].ID, first.ID);
  assert.equal(await consul.kv.set({ key, value: "1", release: first.ID }), true);
  assert.equal(await consul.kv.set({ key, value: "2", acquire: second.ID }), true);
  assert.ok((await consul.session.list()).some((row) => row.ID === first.ID));
  for (const session of [first, second]) await consul.session.destroy(session.ID);
  const { Session } = await consul.kv.get(key);
  assert.equal(Session, undefined);
}

async function events() {
  const name = "npm-deploy";
  const watch = consul.watch({ method: consul.event.list, options: { name, wait: "15s" } });
  const before = await nextChange(watch);
  const seen = nextChange(watch);
  const fired = await consul.event.fire(name, "v1");
  const listed = await seen;
  watch.end();
  assert.equal(listed.length, before.length + 1);
  assert.equal(listed.at(-1).ID, fired.ID);
  // The library decodes what it lists, not what it watches.
  assert.equal((await consul.event.list(name)).at(-1).Payload, "v1");
  await consul.event.fire({ name, node: "^nobody$" });
  assert.equal((await consul.event.list(name)).length, listed.length);
}

async function agent() {
  await consul.agent.reload();
  await consul.agent.maintenance({ enable: true, reason: "npm" });
  assert.ok("_node_maintenance" in (await consul.agent.check.list()));
  await consul.agent.maintenance(false);
  const members = await consul.agent.members();
  const server = members.find((member) => member.Tags.role === "consul");
  await consul.agent.join(server.Addr);
  await consul.agent.forceLeave(server.Name);
  assert.equal((await consul.agent.members()).length, members.length);
  await assert.rejects(consul.acl.legacy.list(), /ACL support disabled/);
}

async function main() {
  assert.match(await consul.status.leader(), /^127\..+:8300$/);
  assert.equal((await consul.agent.self()).Config.Server, false);
  assert.ok((await consul.agent.members()).length >= 3);
  await keys();
  await services();
  await locks();
  await events();
  await agent();
  console.log(JSON.stringify({ ok: true }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
