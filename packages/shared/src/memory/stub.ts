import { ExtentSet } from './extents.js';
export function readBalloonBitmap(_path: string, _bytes: number): ExtentSet { return ExtentSet.empty; }
export function readBalloonJson(_path: string, _bytes: number): ExtentSet { return ExtentSet.empty; }
export function encodeBalloonBitmap(_e: ExtentSet, _b: number): Uint8Array { return new Uint8Array(0); }
