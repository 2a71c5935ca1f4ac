import type { CompiledQuery, Compilable, RawBuilder } from "kysely";
import { sql } from "kysely";
import { invariant } from "#kernel/invariant.ts";

class Slot {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }
}

/** Marks a parameter's place while a template is built. It has the type that the place asks for. */
export type SlotOf<Name extends string> = <T>(name: Name) => RawBuilder<T>;

/**
 * Compiles a query once, to be run with other values each time: building and compiling costs Kysely several times
 * what SQLite needs to insert a row.
 */
export function queryTemplate<Name extends string>(
  build: (slot: SlotOf<Name>) => Compilable,
): (values: Readonly<Record<Name, unknown>>) => CompiledQuery {
  const compiled = build((name) => sql.val(new Slot(name)) as RawBuilder<never>).compile();
  const places = compiled.parameters.map((place) =>
    place instanceof Slot ? { slot: place.name as Name } : { slot: undefined, constant: place },
  );
  const { query, queryId, sql: text } = compiled;
  return (values) => {
    const parameters: unknown[] = [];
    for (const place of places) {
      const value = place.slot === undefined ? place.constant : values[place.slot];
      invariant(value !== undefined, `query template: no value for ${place.slot}`);
      parameters.push(value);
    }
    return { query, queryId, sql: text, parameters };
  };
}
