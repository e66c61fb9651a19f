import assert from "node:assert/strict";
import { test } from "node:test";

import { DECODING } from "../../src/decoding.ts";
import { digestOf } from "../../src/screens/annotate/sync/digest.ts";
import { LONGEST_PAUSE, QUIET } from "../../src/screens/annotate/sync/outbox.ts";
import { Away } from "../../src/screens/annotate/sync/server.ts";
import { box, Fake, Memory, ONE, page, settle, THREE, TWO } from "./fake.ts";

const labels = (fake: Fake, content = ONE) => fake.drafts.get(content)?.objects.map((shape) => shape.label);

test("what is drawn is sent once it is quiet, and only then called saved", async () => {
  const fake = new Fake();
  const { drafts, time, memory } = page(fake);
  await drafts.open("d", ONE);
  assert.equal(drafts.state.value, "saved");
  drafts.save([box("car")]);
  drafts.save([box("dog")]);
  assert.equal(drafts.state.value, "saving");
  assert.equal(fake.count("PUT", "/draft"), 0);
  await time.pass(QUIET);
  assert.deepEqual(labels(fake), ["dog"]);
  assert.equal(drafts.state.value, "saved");
  assert.equal(fake.count("PUT", "/draft"), 1);
  assert.equal(fake.drafts.get(ONE)?.author, "Ann 安");
  assert.equal(memory.length, 0, "the server has it");
  drafts.save([]);
  await time.pass(QUIET);
  assert.deepEqual(labels(fake), []);
});

test("a change during the sending is sent after it", async () => {
  const fake = new Fake();
  const { drafts, time } = page(fake);
  await drafts.open("d", ONE);
  drafts.save([box("car")]);
  const sending = drafts.flush();
  drafts.save([box("dog")]);
  await sending;
  assert.notEqual(labels(fake), undefined);
  await time.pass(QUIET);
  assert.deepEqual(labels(fake), ["dog"]);
  assert.equal(drafts.state.value, "saved");
});

test("a server that is away is tried again, more and more slowly, until it is back", async () => {
  const fake = new Fake();
  const { drafts, time, memory } = page(fake);
  await drafts.open("d", ONE);
  fake.away = true;
  drafts.save([box("car")]);
  await time.pass(QUIET);
  assert.equal(drafts.state.value, "offline");
  assert.equal(memory.length, 1);
  await time.pass(300_000);
  const tries = fake.count("PUT", "/draft");
  assert.ok(tries > 8 && tries < 20, `${tries} tries in five minutes`);
  drafts.save([box("car"), box("dog", "b")]);
  fake.away = false;
  await time.pass(LONGEST_PAUSE);
  assert.deepEqual(labels(fake), ["car", "dog"]);
  assert.equal(drafts.state.value, "saved");
  assert.equal(memory.length, 0);
});

test("an error of the server and a limit are no reason to give up", async () => {
  const fake = new Fake();
  const { drafts, time } = page(fake);
  await drafts.open("d", ONE);
  fake.trouble = [503, 500, 429];
  drafts.save([box("car")]);
  await time.pass(QUIET);
  assert.equal(drafts.state.value, "offline");
  await time.pass(10_000);
  assert.deepEqual(labels(fake), ["car"]);
});

test("a lost answer is no conflict: what is there is known as one's own", async () => {
  const fake = new Fake();
  const { drafts, time } = page(fake);
  await drafts.open("d", ONE);
  drafts.save([box("car")]);
  fake.trouble = ["lost"];
  await time.pass(QUIET);
  assert.deepEqual(labels(fake), ["car"], "it was stored");
  assert.equal(drafts.state.value, "offline");
  drafts.save([box("dog")]);
  await time.pass(LONGEST_PAUSE);
  assert.equal(drafts.state.value, "saved");
  assert.deepEqual(labels(fake), ["dog"]);
});

test("work outlives a reload, a 401 and a sign-in", async () => {
  const fake = new Fake();
  const memory = new Memory();
  const before = page(fake, memory, "t1");
  await before.drafts.open("d", ONE);
  fake.signedOut = true;
  before.drafts.save([box("car")]);
  await before.time.pass(QUIET);
  assert.equal(before.drafts.state.value, "signed-out");
  before.drafts.save([box("dog")]);
  before.outbox.keepNow(); // the page goes
  assert.equal(memory.length, 1);
  fake.signedOut = false;
  const after = page(fake, memory, "t2");
  const loaded = await after.drafts.open("d", ONE);
  assert.deepEqual(loaded.objects.map((shape) => shape.label), ["dog"]);
  await after.time.pass(1000);
  assert.deepEqual(labels(fake), ["dog"]);
  assert.equal(memory.length, 0);
  assert.equal(after.drafts.state.value, "saved");
});

test("signing in again sends at once what waited", async () => {
  const fake = new Fake();
  const { drafts, outbox, time } = page(fake);
  await drafts.open("d", ONE);
  fake.signedOut = true;
  drafts.save([box("car")]);
  await time.pass(60_000);
  fake.signedOut = false;
  outbox.retry();
  await time.pass(1);
  assert.deepEqual(labels(fake), ["car"]);
});

test("two windows on one image: the second is told, and nothing is overwritten", async () => {
  const fake = new Fake();
  const memory = new Memory();
  const one = page(fake, memory, "t1");
  const two = page(fake, memory, "t2");
  await one.drafts.open("d", ONE);
  await two.drafts.open("d", ONE);
  one.drafts.save([box("car")]);
  await one.time.pass(QUIET);
  two.drafts.save([box("dog")]);
  await two.time.pass(QUIET);
  assert.equal(two.drafts.state.value, "conflict");
  assert.match(two.drafts.detail.value, /Ann 安, 2026/);
  assert.deepEqual(labels(fake), ["car"]);
  two.drafts.save([box("dog"), box("dog", "b")]);
  await two.time.pass(60_000);
  assert.deepEqual(labels(fake), ["car"], "nobody has decided yet");
  await two.drafts.resolve("mine");
  assert.equal(two.drafts.state.value, "saved");
  assert.deepEqual(labels(fake), ["dog", "dog"]);
});

test("theirs is taken by dropping one's own, and the image is opened again", async () => {
  const fake = new Fake();
  const { drafts, time, memory } = page(fake);
  await drafts.open("d", ONE);
  fake.write(ONE, "Bob", [box("tree")]);
  drafts.save([box("dog")]);
  await time.pass(QUIET);
  assert.equal(drafts.state.value, "conflict");
  await drafts.resolve("theirs");
  assert.equal(drafts.replaced.value, 1);
  assert.equal(memory.length, 0);
  const again = await drafts.open("d", ONE);
  assert.deepEqual(again.objects.map((shape) => shape.label), ["tree"]);
  assert.equal(drafts.state.value, "saved");
});

test("what another has stored since is said when a draft is opened", async () => {
  const fake = new Fake();
  const first = page(fake);
  await first.drafts.open("d", ONE);
  first.drafts.save([box("dog")]);
  await first.time.pass(QUIET);
  fake.stored.set(ONE, { base: "b2", by: "Bob", objects: [box("tree")] });
  const mine = page(fake);
  const loaded = await mine.drafts.open("d", ONE);
  assert.deepEqual(loaded.objects.map((shape) => shape.label), ["dog"]);
  assert.equal(mine.drafts.state.value, "conflict");
  await mine.drafts.resolve("mine");
  assert.equal(fake.drafts.get(ONE)?.base, "b2");
  assert.deepEqual(labels(fake), ["dog"]);
  fake.stored.set(ONE, { base: "b3", by: "Bob", objects: [box("tree")] });
  const theirs = page(fake);
  await theirs.drafts.open("d", ONE);
  await theirs.drafts.resolve("theirs");
  assert.equal(fake.drafts.has(ONE), false);
  assert.deepEqual((await theirs.drafts.open("d", ONE)).objects.map((shape) => shape.label), ["tree"]);
});

test("a draft that was committed by another window begins anew, on what was committed", async () => {
  const fake = new Fake();
  const { drafts, time } = page(fake);
  await drafts.open("d", ONE);
  drafts.save([box("car")]);
  void drafts.accept();
  await time.pass(QUIET);
  fake.drafts.delete(ONE);
  fake.stored.set(ONE, { base: "b2", by: "Ann 安", objects: [box("car")] });
  drafts.save([box("car"), box("dog", "b")]);
  await time.pass(QUIET);
  assert.equal(drafts.state.value, "saved");
  assert.deepEqual(labels(fake), ["car", "dog"]);
  assert.equal(fake.drafts.get(ONE)?.base, "b2");
});

test("who goes on after an own commit sends the base of what was committed", async () => {
  const fake = new Fake();
  const { drafts, time } = page(fake);
  await drafts.open("d", ONE);
  fake.replaced.set("none", "b2");
  drafts.save([box("car")]);
  await time.pass(QUIET);
  fake.replaced.clear();
  drafts.save([box("dog")]);
  await time.pass(QUIET);
  assert.deepEqual([labels(fake), fake.drafts.get(ONE)?.base], [["dog"], "b2"]);
});

test("accept goes on at once to an image that is there already", async () => {
  const fake = new Fake();
  const { drafts, time, prepared } = page(fake);
  await drafts.next("d");
  drafts.prefetch();
  await settle();
  const urls = [TWO, THREE].map((content) => `/prefix/api/datasets/d/pictures/${content}?as=browser&decoding=${DECODING}`);
  assert.deepEqual(prepared, urls);
  drafts.save([box("car")]);
  const accepted = drafts.accept();
  const calls = fake.calls.length;
  const second = await drafts.next("d");
  assert.equal(second?.content, TWO);
  assert.equal(fake.calls.length, calls, "nothing had to be asked");
  await time.pass(1);
  await accepted;
  assert.equal(fake.drafts.get(ONE)?.state, "accepted");
  void drafts.accept();
  const third = await drafts.next("d");
  assert.equal(third?.content, THREE);
  await time.pass(1);
  assert.deepEqual(labels(fake, TWO), [], "checked, nothing here");
  void drafts.skip("blurred");
  await time.pass(1);
  assert.ok(fake.skipped.has(THREE));
  assert.equal(await drafts.next("d"), null);
  assert.equal(drafts.state.value, "saved");
});

test("what was saved before is what is accepted; what was stored is accepted unchanged", async () => {
  const fake = new Fake();
  fake.stored.set(TWO, { base: "b1", by: "Bob", objects: [box("tree")] });
  const { drafts, time } = page(fake);
  await drafts.open("d", ONE);
  drafts.save([box("car")]);
  await time.pass(60_000);
  void drafts.accept();
  await time.pass(1);
  assert.deepEqual([labels(fake), fake.drafts.get(ONE)?.state], [["car"], "accepted"]);
  await drafts.open("d", TWO);
  void drafts.accept();
  await time.pass(1);
  assert.deepEqual([labels(fake, TWO), fake.drafts.get(TWO)?.base], [["tree"], "b1"]);
});

test("an image that is accepted while the server is away is not given again", async () => {
  const fake = new Fake();
  const { drafts, time } = page(fake);
  await drafts.next("d");
  drafts.prefetch();
  await settle();
  fake.away = true;
  drafts.save([box("car")]);
  void drafts.accept();
  assert.equal((await drafts.next("d"))?.content, TWO, "it was fetched ahead");
  drafts.save([box("dog")]);
  void drafts.accept();
  assert.equal((await drafts.next("d"))?.content, THREE);
  void drafts.accept();
  await assert.rejects(drafts.next("d"), Away);
  fake.away = false;
  await time.pass(LONGEST_PAUSE);
  assert.deepEqual([labels(fake, ONE), labels(fake, TWO), labels(fake, THREE)], [["car"], ["dog"], []]);
  assert.equal(await drafts.next("d"), null);
});

test("no more images are claimed than are looked at soon", async () => {
  const fake = new Fake();
  fake.queue = Array.from({ length: 30 }, (_, at) => String(at).padStart(64, "0"));
  const { drafts, time } = page(fake);
  for (let turn = 0; turn < 10; turn += 1) {
    await drafts.next("d");
    drafts.prefetch();
    await settle();
    void drafts.accept();
    await time.pass(1);
  }
  assert.ok(fake.claimed.every((count) => count <= 4), String(fake.claimed));
});

test("what cannot be stored is said, and stays as a draft", async () => {
  const fake = new Fake();
  const { drafts, time } = page(fake);
  await drafts.open("d", ONE);
  fake.refuseAccepted = "1.png: the object 'car' has no area.";
  drafts.save([box("car")]);
  const refused = assert.rejects(drafts.accept(), /no area/);
  await time.pass(QUIET);
  await refused;
  assert.equal(fake.drafts.get(ONE)?.state, "draft");
  assert.deepEqual(labels(fake), ["car"]);
  assert.equal(drafts.state.value, "error");
  assert.match(drafts.detail.value, /no area/);
  fake.refuseAccepted = "";
  drafts.save([box("dog")]);
  void drafts.accept();
  await time.pass(QUIET);
  assert.equal(drafts.state.value, "saved");
});

test("a deleted dataset or a lost right keeps the work in the browser", async () => {
  const fake = new Fake();
  const { drafts, outbox, time, memory } = page(fake);
  await drafts.open("d", ONE);
  fake.trouble = [403];
  drafts.save([box("car")]);
  await time.pass(60_000);
  assert.equal(drafts.state.value, "error");
  assert.equal(memory.length, 1);
  outbox.retry();
  await time.pass(1000);
  assert.deepEqual(labels(fake), ["car"]);
  assert.equal(memory.length, 0);
});

test("a full storage is said, and the work is sent all the same", async () => {
  const fake = new Fake();
  const memory = new Memory();
  memory.full = true;
  const { drafts, time } = page(fake, memory);
  await drafts.open("d", ONE);
  fake.away = true;
  drafts.save([box("car")]);
  await time.pass(QUIET);
  assert.equal(drafts.unkept.value, true);
  fake.away = false;
  await time.pass(LONGEST_PAUSE);
  assert.deepEqual(labels(fake), ["car"]);
  assert.equal(drafts.unkept.value, false);
});

test("a commit whose answer was lost is made once, also after a reload", async () => {
  const fake = new Fake();
  const { drafts, keys } = page(fake);
  await drafts.open("d", ONE);
  fake.trouble = ["lost"];
  await assert.rejects(drafts.commit(false), Away);
  assert.equal(keys.size, 1);
  assert.equal((await drafts.commit(false)).revision, 1);
  assert.equal(keys.size, 0);
  assert.equal((await drafts.commit(false)).revision, 2);
  fake.trouble = [409];
  await assert.rejects(drafts.commit(false));
  assert.equal(keys.size, 0, "a refused commit is another one when it is tried again");
});

test("digests tell work apart by what is seen of it", () => {
  const car = box("car");
  assert.equal(digestOf([car], "draft"), digestOf([{ ...car, by: "Bob", score: 0.5, source: "model" }], "draft"));
  assert.notEqual(digestOf([car], "draft"), digestOf([car], "accepted"));
  assert.notEqual(digestOf([car], "draft"), digestOf([{ ...car, box: [1, 2, 30, 20.001] }], "draft"));
  assert.notEqual(digestOf([car], "draft"), digestOf([], "draft"));
});
