import type { Schemas } from "../../api";

/** A dataset as the server answers it: with every field, also those that have a default. */
export type Dataset = Required<Schemas["Dataset"]>;

/** An answer's dataset. */
export function complete(dataset: Schemas["Dataset"]): Dataset {
  return dataset as Dataset;
}
