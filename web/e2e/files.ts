/** Just enough of PNG and zip to look inside what the page downloads. */

import { inflateSync } from "node:zlib";

export interface Chunk {
  type: string;
  data: Buffer;
}

export function chunks(png: Buffer): Chunk[] {
  const found: Chunk[] = [];
  for (let at = 8; at < png.length;) {
    const length = png.readUInt32BE(at);
    const type = png.toString("latin1", at + 4, at + 8);
    found.push({ type, data: png.subarray(at + 8, at + 8 + length) });
    at += length + 12;
  }
  return found;
}

/** The texts of a PNG by their keywords. */
export function texts(png: Buffer): Map<string, string> {
  const found = new Map<string, string>();
  for (const { type, data } of chunks(png)) {
    const end = data.indexOf(0);
    const key = data.toString("latin1", 0, end);
    if (type === "tEXt") found.set(key, data.toString("latin1", end + 1));
    if (type === "zTXt") found.set(key, inflateSync(data.subarray(end + 2)).toString("latin1"));
    if (type === "iTXt") {
      const packed = data[end + 1] === 1;
      const language = data.indexOf(0, end + 3);
      const body = data.subarray(data.indexOf(0, language + 1) + 1);
      found.set(key, (packed ? inflateSync(body) : body).toString("utf8"));
    }
  }
  return found;
}

export function dimensions(png: Buffer): { width: number; height: number } {
  return { width: png.readUInt32BE(16), height: png.readUInt32BE(20) };
}

/** The names in a zip, from its central directory. */
export function names(zip: Buffer): string[] {
  const found: string[] = [];
  for (let at = zip.indexOf("PK\x01\x02"); at >= 0; at = zip.indexOf("PK\x01\x02", at + 4)) {
    const length = zip.readUInt16LE(at + 28);
    found.push(zip.toString("utf8", at + 46, at + 46 + length));
  }
  return found;
}
