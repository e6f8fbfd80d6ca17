import type { TrialReport } from '../trial-report.js';
import { trialCsv } from './csv.js';
import type { ReportFormat } from './format-names.js';
import { trialHtml } from './html.js';
import { trialMarkdown } from './markdown.js';

/** How a trial is written to a file. */
export const REPORT_FORMATS = {
  html: trialHtml,
  json: (report: TrialReport) => `${JSON.stringify(report, null, 1)}\n`,
  md: trialMarkdown,
  csv: trialCsv,
} as const satisfies Readonly<Record<ReportFormat, (report: TrialReport) => string>>;
