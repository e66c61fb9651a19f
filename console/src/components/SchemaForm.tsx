/** A form made from a JSON schema of the OpenAPI document: groups, advanced fields, errors at their place. */
import type { ComponentChildren } from "preact";
import { useId, useLayoutEffect, useState } from "preact/hooks";
import { Field } from "./Field";
import { Icon } from "./Icon";
import { parsed, type FormField, type Values } from "./schema-fields";

/** A control of a screen in place of a field's own, such as a list of datasets. */
export type Control = (field: FormField, value: unknown, change: (value: unknown) => void, id: string) => ComponentChildren;

export interface SchemaFormProps {
  fields: readonly FormField[];
  values: Values;
  onChange: (name: string, value: unknown) => void;
  /** Error by the name of its field. */
  errors?: Record<string, string>;
  /** Title and hint of a field, and the title of a group, in the reader's language. */
  words: { field: (field: FormField) => { title: string; hint: string }; group: (name: string) => string };
  controls?: Record<string, Control>;
  /** The words above the advanced fields; `given` of them have a value. */
  advanced: (given: number) => string;
  /** What a choice without a value shows. */
  standard: (fallback: unknown) => string;
}

export function SchemaForm(props: SchemaFormProps) {
  const simple = props.fields.filter((field) => !field.advanced);
  const rest = props.fields.filter((field) => field.advanced);
  const groups = [...new Set(rest.map((field) => field.group))];
  const given = rest.filter((field) => props.values[field.name] !== undefined).length;
  const wrong = rest.some((field) => props.errors?.[field.name]);
  const [open, setOpen] = useState(false);
  useLayoutEffect(() => {
    if (wrong) setOpen(true); // it stays open when the error is mended
  }, [wrong]);
  return (
    <div class="stack">
      <div class="columns">
        {simple.map((field) => (
          <Row key={field.name} field={field} form={props} />
        ))}
      </div>
      {rest.length > 0 && (
        <details class="schema-advanced" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
          <summary>
            <Icon name="next" size={16} />
            {props.advanced(given)}
          </summary>
          <div class="stack">
            {groups.map((group) => (
              <fieldset key={group} class="schema-group">
                <legend>{props.words.group(group)}</legend>
                <div class="schema-fields">
                  {rest
                    .filter((field) => field.group === group)
                    .map((field) => (
                      <Row key={field.name} field={field} form={props} />
                    ))}
                </div>
              </fieldset>
            ))}
          </div>
        </details>
      )}
    </div>
  );
}

function Row({ field, form }: { field: FormField; form: SchemaFormProps }) {
  const { title, hint } = form.words.field(field);
  const value = form.values[field.name];
  const change = (next: unknown) => form.onChange(field.name, next);
  const error = form.errors?.[field.name];
  const custom = form.controls?.[field.name];
  if (field.kind === "choices") return <Choices field={field} title={title} hint={hint} error={error} value={value} change={change} />;
  return (
    <Field label={field.required ? `${title} *` : title} hint={hint} error={error}>
      {(control) => (custom ? custom(field, value, change, control.id) : <Plain field={field} value={value} change={change} control={control} standard={form.standard} />)}
    </Field>
  );
}

interface PlainProps {
  field: FormField;
  value: unknown;
  change: (value: unknown) => void;
  control: { id: string; "aria-describedby": string | undefined; "aria-invalid": boolean | undefined };
  standard: (fallback: unknown) => string;
}

function Plain({ field, value, change, control, standard }: PlainProps) {
  const { schema, kind, fallback } = field;
  if (kind === "choice" || kind === "switch") {
    const options = kind === "switch" ? ["true", "false"] : (schema.enum ?? []).map(String);
    return (
      <select
        {...control}
        value={value === undefined ? "" : String(value)}
        onChange={({ currentTarget: { value: chosen } }) => change(chosen === "" ? undefined : kind === "switch" ? chosen === "true" : chosen)}
      >
        <option value="">{standard(fallback)}</option>
        {options.map((one) => (
          <option key={one} value={one}>
            {one}
          </option>
        ))}
      </select>
    );
  }
  const numeric = kind === "integer" || kind === "number";
  return (
    <input
      {...control}
      type={numeric ? "number" : "text"}
      min={schema.minimum ?? schema.exclusiveMinimum}
      max={schema.maximum}
      step={kind === "integer" ? 1 : "any"}
      maxLength={schema.maxLength}
      required={field.required}
      autocomplete="off"
      spellcheck={false}
      placeholder={fallback === undefined ? "" : String(fallback)}
      value={Array.isArray(value) ? value.join(", ") : value === undefined ? "" : String(value)}
      onChange={(event) => change(parsed(field, event.currentTarget.value))}
    />
  );
}

/** Several of a list of words. */
function Choices({ field, title, hint, error, value, change }: { field: FormField; title: string; hint: string; error?: string; value: unknown; change: (value: unknown) => void }) {
  const id = useId();
  const chosen = Array.isArray(value) ? (value as unknown[]) : [];
  return (
    <fieldset class="field" aria-describedby={`${id}-hint`}>
      <legend>{title}</legend>
      {(field.schema.items?.enum ?? []).map((one) => (
        <label key={one} class="switch">
          <input
            type="checkbox"
            checked={chosen.includes(one)}
            onChange={(event) => change(event.currentTarget.checked ? [...chosen, one] : chosen.filter((other) => other !== one))}
          />
          <span>{one}</span>
        </label>
      ))}
      <p id={`${id}-hint`} class={error ? "field-error" : "hint"}>
        {error ?? hint}
      </p>
    </fieldset>
  );
}
