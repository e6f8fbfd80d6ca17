import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { ExecutionContext } from 'ava';
import { chromium, type Page } from 'playwright-core';

/** Debian's. */
const CHROMIUM = '/usr/bin/chromium';
/** No sandbox for root, no GPU here, and not a packet to anyone. */
const FLAGS = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
];

/** Why no page can be looked at here; undefined when it can. */
export function whyNoBrowser(): string | undefined {
  try {
    accessSync(CHROMIUM, constants.X_OK);
    return undefined;
  } catch {
    return `there is no ${CHROMIUM} here`;
  }
}

/** A page in a browser, and all that it complained about or asked the network for. */
export interface OpenPage {
  readonly page: Page;
  readonly complaints: readonly string[];
}

export async function openPage(t: ExecutionContext, path: string): Promise<OpenPage> {
  const profile = await mkdtemp(join(tmpdir(), 'ballast-browser-'));
  const browser = await chromium.launchPersistentContext(profile, { executablePath: CHROMIUM, args: FLAGS });
  t.teardown(async () => {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  });
  const page = await browser.newPage();
  const complaints: string[] = [];
  page.on('console', (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('request', (request) => {
    if (!/^(file|data):/.test(request.url())) complaints.push(`asks for ${request.url()}`);
  });
  await page.goto(pathToFileURL(path).href);
  return { page, complaints };
}
