export type JsonObject = Readonly<Record<string, unknown>>;

/** A JSON value as an object; anything else becomes an error that shows it. */
export function asObject(value: unknown): JsonObject {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value };
  throw new Error(`expected a JSON object, got ${JSON.stringify(value)}`);
}

export function parseObject(line: string): JsonObject {
  return asObject(JSON.parse(line));
}
