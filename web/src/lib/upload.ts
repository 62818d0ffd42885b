/** Pictures that people bring, made ready to send: whatever the browser can show, and never large. */

/** More than the model will ever see, and what the server keeps. */
const SIDE = 2048;

/** Thrown for what the browser cannot show as a picture. */
export class Unreadable extends Error {}

/** What the server reads as it stands, told by how a file begins; names and types may lie. */
export function kindOf(head: Uint8Array): "image/png" | "image/jpeg" | "image/webp" | null {
  const text = String.fromCharCode(...head);
  if (text.startsWith("\x89PNG\r\n\x1a\n")) return "image/png";
  if (text.startsWith("\xff\xd8\xff")) return "image/jpeg";
  return text.startsWith("RIFF") && text.slice(8, 12) === "WEBP" ? "image/webp" : null;
}

/** The size of a picture whose longer side is not too long. */
export function within(width: number, height: number): { width: number; height: number } {
  const scale = Math.min(1, SIDE / Math.max(width, height));
  const scaled = (side: number) => Math.max(1, Math.round(side * scale));
  return { width: scaled(width), height: scaled(height) };
}

/**
 * A file as the server takes it: unchanged where that is possible, else as a PNG of what is seen,
 * turned as its camera says, with what is transparent.
 *
 * @param most bytes that the server takes.
 */
export async function prepared(file: Blob, most: number): Promise<Blob> {
  try {
    return await made(file, most);
  } catch (cause) {
    throw new Unreadable("the browser cannot show this as a picture", { cause });
  }
}

async function made(file: Blob, most: number): Promise<Blob> {
  const kind = await kindIn(file);
  const whole = await createImageBitmap(file);
  try {
    const { width, height } = within(whole.width, whole.height);
    const fits = width === whole.width && height === whole.height;
    if (kind !== null && fits && file.size <= most) return new Blob([file], { type: kind });
    return await drawn(whole, width, height);
  } finally {
    whole.close();
  }
}

const kindIn = async (file: Blob) => kindOf(new Uint8Array(await file.slice(0, 12).arrayBuffer()));

async function drawn(whole: ImageBitmap, width: number, height: number): Promise<Blob> {
  const small = await createImageBitmap(whole, {
    resizeWidth: width,
    resizeHeight: height,
    resizeQuality: "high",
  });
  const canvas = new OffscreenCanvas(width, height);
  (canvas.getContext("2d") as OffscreenCanvasRenderingContext2D).drawImage(small, 0, 0);
  small.close();
  return canvas.convertToBlob({ type: "image/png" });
}

/** A file at its own size, of a kind that the server reads. */
export async function whole(file: Blob): Promise<Blob> {
  const kind = await kindIn(file);
  if (kind !== null) return new Blob([file], { type: kind });
  const bitmap = await createImageBitmap(file);
  try {
    return await drawn(bitmap, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}

/** Whether a file may say how it was drawn here: what does not even name us needs no asking. */
export async function namesUs(file: Blob): Promise<boolean> {
  try {
    return (await file.text()).includes("asymflow");
  } catch (cause) {
    throw new Unreadable("the browser cannot read this file", { cause });
  }
}
