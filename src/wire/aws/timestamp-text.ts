/** ISO 8601 as the AWS protocols use it: a date, or a date with a time and a zone. */
const iso = /^\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:?\d{2})?)?$/;

/** The one form that decoded values have (`2026-01-02T03:04:05.000Z`), or undefined if the text is no point in time. */
export function canonicalTimestamp(text: string): string | undefined {
  if (!iso.test(text)) return undefined;
  // As AWS itself writes it.
  if (text.endsWith("Z")) return isoOf(Date.parse(text));
  // Without a zone a time means UTC here, not the machine's own zone.
  const zoned = text.length > 10 && !/(?:Z|[+-]\d{2}:?\d{2})$/.test(text.slice(11)) ? `${text}Z` : text;
  return isoOf(
    Date.parse(
      zoned.replace(/([+-]\d{2})(\d{2})$/, (whole, hours: string, minutes: string) =>
        zoned.includes("T") ? `${hours}:${minutes}` : whole,
      ),
    ),
  );
}

function isoOf(millis: number): string | undefined {
  return Number.isNaN(millis) ? undefined : new Date(millis).toISOString();
}
