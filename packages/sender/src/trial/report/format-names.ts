/** How a trial can be written to a file, by the ending of the file's name. */
export const REPORT_FORMAT_NAMES = ['html', 'json', 'md', 'csv'] as const;
export type ReportFormat = (typeof REPORT_FORMAT_NAMES)[number];

/** The format that a file name asks for; undefined for an ending that is none. */
export function reportFormatOf(path: string): ReportFormat | undefined {
  const ending = /\.([a-z]+)$/i.exec(path)?.[1]?.toLowerCase();
  return REPORT_FORMAT_NAMES.find((format) => format === ending);
}
