import * as v from 'valibot';
import type { QmpClient } from './client.js';

const statusSchema = v.looseObject({ status: v.string(), running: v.boolean() });

/** QEMU's word for what the guest does (RunState in qapi/run-state.json): running, paused, inmigrate, postmigrate… */
export async function runStateOf(qmp: QmpClient): Promise<{ status: string; running: boolean }> {
  return await qmp.query('query-status', statusSchema);
}

const migrationSchema = v.looseObject({ status: v.optional(v.string()), 'error-desc': v.optional(v.string()) });

/** What QEMU's own migration, in either direction, is doing: none, setup, active, completed, failed, cancelled… */
export async function migrationOf(qmp: QmpClient): Promise<{ status: string; reason: string | undefined }> {
  const { status, 'error-desc': reason } = await qmp.query('query-migrate', migrationSchema);
  return { status: status ?? 'none', reason };
}

const ENDED_MIGRATIONS: ReadonlySet<string> = new Set(['none', 'completed', 'failed', 'cancelled']);

/** Whether a migration is under way, whoever has begun it. */
export async function isMigrating(qmp: QmpClient): Promise<boolean> {
  return !ENDED_MIGRATIONS.has((await migrationOf(qmp)).status);
}
