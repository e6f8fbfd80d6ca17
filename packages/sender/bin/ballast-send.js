#!/usr/bin/env node
import { startProgram } from '@ballast/shared/start';

await startProgram(import.meta.url);
