import assert from "node:assert/strict";
import { test } from "node:test";
import { bodyOf, fieldOf, fieldsOf, parsed, valuesOf, type JsonSchema } from "../src/components/schema-fields.ts";

const nothing = { type: "null" };
const schema: JsonSchema = {
  required: ["data_path"],
  properties: {
    data_path: { anyOf: [{ type: "string", maxLength: 9 }, nothing], title: "Dataset", "x-group": "Data", "x-advanced": false },
    epochs: { anyOf: [{ type: "integer", minimum: 1 }, nothing], title: "Epochs", "x-group": "Schedule", "x-default": 50 },
    rehearsal: { anyOf: [{ type: "string", enum: ["random", "herding"] }, nothing], "x-group": "Retention", "x-advanced": true },
    new_classes: { anyOf: [{ type: "string" }, { type: "array", items: { type: "string" } }, nothing], "x-group": "Retention", "x-advanced": true },
    kinds: { anyOf: [{ type: "array", items: { type: "string", enum: ["a", "b"] } }, nothing], "x-group": "Data" },
    hyper: {
      anyOf: [{ type: "object", "x-properties": { lr0: { type: "number", title: "lr0", "x-group": "Schedule", "x-advanced": true }, amp: { type: "boolean", "x-group": "Data" } } }, nothing],
      "x-group": "Schedule",
    },
    project: {},
  },
};

test("fields come in order, with their kinds, and those without effect do not", () => {
  const fields = fieldsOf(schema);
  assert.deepEqual(
    fields.map(({ name, kind }) => [name, kind]),
    [
      ["data_path", "text"],
      ["epochs", "integer"],
      ["rehearsal", "choice"],
      ["new_classes", "list"],
      ["kinds", "choices"],
      ["hyper.lr0", "number"],
      ["hyper.amp", "switch"],
    ],
  );
  assert.deepEqual([fields[0]!.required, fields[0]!.title, fields[0]!.schema.maxLength], [true, "Dataset", 9]);
  assert.deepEqual([fields[1]!.fallback, fields[1]!.schema.minimum, fields[1]!.advanced], [50, 1, false]);
});

test("a text becomes a value, an empty one nothing, a wrong number stays for the API to refuse", () => {
  const [, epochs, , classes] = fieldsOf(schema);
  assert.equal(parsed(epochs!, " 12 "), 12);
  assert.equal(parsed(epochs!, ""), undefined);
  assert.equal(parsed(epochs!, "many"), "many");
  assert.deepEqual(parsed(classes!, "tram, bus，\n"), ["tram", "bus"]);
});

test("a body holds what was given, and gives it back", () => {
  const values = { data_path: "signs", epochs: undefined, "hyper.lr0": 0.01, "hyper.amp": false };
  const body = bodyOf(values);
  assert.deepEqual(body, { data_path: "signs", hyper: { lr0: 0.01, amp: false } });
  assert.deepEqual(valuesOf(fieldsOf(schema), { ...body, project: "", epochs: null }), { data_path: "signs", "hyper.lr0": 0.01, "hyper.amp": false });
});

test("an error of the API finds its field", () => {
  const fields = fieldsOf(schema);
  assert.equal(fieldOf("'epochs' must be a whole number from 1 to 100000; got 0.", fields), "epochs");
  assert.equal(fieldOf("lr0 is '7'; allowed is a number from 1e-06 to 1.", fields), "hyper.lr0");
  assert.equal(fieldOf("No dataset 'x'. GET /api/datasets lists them.", fields), null);
});
