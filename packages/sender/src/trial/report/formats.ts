import type { TrialReport } from '../trial-report.js';
import { trialCsv } from './csv.js';
import { trialHtml } from './html.js';
import { trialMarkdown } from './markdown.js';

/** How a trial can be written to a file, by the ending of its name. */
export const REPORT_FORMATS = {
  html: trialHtml,
  json: (report: TrialReport) => `${JSON.stringify(report, null, 1)}\n`,
  md: trialMarkdown,
  csv: trialCsv,
} as const satisfies Readonly<Record<string, (report: TrialReport) => string>>;

export type ReportFormat = keyof typeof REPORT_FORMATS;

/** The format that a file name asks for; undefined for an ending that is none. */
export function reportFormatOf(path: string): ReportFormat | undefined {
  const ending = /\.([a-z]+)$/i.exec(path)?.[1]?.toLowerCase();
  return (Object.keys(REPORT_FORMATS) as ReportFormat[]).find((format) => format === ending);
}
