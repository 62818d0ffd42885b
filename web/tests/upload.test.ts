import { afterEach, expect, test, vi } from "vitest";
import { kindOf, namesUs, prepared, Unreadable, within } from "../src/lib/upload";

const bytes = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));
const PNG = "\x89PNG\r\n\x1a\n";

/** What a browser would make of a file. */
function shown(width: number, height: number) {
  const close = vi.fn();
  vi.stubGlobal("createImageBitmap", async (_: Blob, to?: { resizeWidth: number }) => ({
    width: to?.resizeWidth ?? width,
    height,
    close,
  }));
  vi.stubGlobal(
    "OffscreenCanvas",
    class {
      constructor(
        readonly width: number,
        readonly height: number,
      ) {}
      getContext = () => ({ drawImage: () => undefined });
      convertToBlob = async () => new Blob([`${this.width}x${this.height}`], { type: "image/png" });
    },
  );
  return close;
}

afterEach(() => vi.unstubAllGlobals());

test("the beginning of a file says what it is", () => {
  expect(kindOf(bytes(`${PNG}\0\0\0\r`))).toBe("image/png");
  expect(kindOf(bytes("\xff\xd8\xff\xe1\0\0Exif\0\0"))).toBe("image/jpeg");
  expect(kindOf(bytes("RIFF\0\0\0\0WEBP"))).toBe("image/webp");
  for (const other of ["", "GIF89a", "RIFF\0\0\0\0WAVE", "\0\0\0\x18ftypheic", "PNG"])
    expect(kindOf(bytes(other)), other).toBeNull();
});

test("no side is longer than a model will see, and none is nothing", () => {
  expect(within(800, 600)).toEqual({ width: 800, height: 600 });
  expect(within(8000, 6000)).toEqual({ width: 2048, height: 1536 });
  expect(within(20000, 3)).toEqual({ width: 2048, height: 1 });
});

test("what the server reads as it stands is sent as it stands", async () => {
  const close = shown(1024, 700);
  const sent = await prepared(new File([bytes(`${PNG}data`)], "a.gif", { type: "image/gif" }), 99);
  expect(sent.type).toBe("image/png");
  expect(await sent.text()).toContain("data");
  expect(close).toHaveBeenCalled();
});

test.each([
  ["too many pixels", `${PNG}data`, 8000, 6000, 99, "2048x1536"],
  ["too many bytes", `${PNG}data`, 640, 480, 5, "640x480"],
  ["another kind", "GIF89a", 640, 480, 99, "640x480"],
])("with %s a picture is drawn anew", async (_, data, width, height, most, expected) => {
  shown(width, height);
  const sent = await prepared(new Blob([bytes(data)]), most);
  expect([sent.type, await sent.text()]).toEqual(["image/png", expected]);
});

test("what the browser cannot show, or read at all, is not sent", async () => {
  vi.stubGlobal("createImageBitmap", () => Promise.reject(new DOMException("no picture")));
  await expect(prepared(new Blob(["%PDF"]), 99)).rejects.toThrow(Unreadable);
  const folder = { slice: () => folder, arrayBuffer: () => Promise.reject(new Error("a folder")) };
  const text = () => Promise.reject(new Error("a folder"));
  await expect(prepared(folder as unknown as Blob, 99)).rejects.toThrow(Unreadable);
  await expect(namesUs({ text } as unknown as Blob)).rejects.toThrow(Unreadable);
});

test("only a file that names us can carry settings", async () => {
  expect(await namesUs(new Blob([bytes(`${PNG}tEXtasymflow\0{}`)]))).toBe(true);
  expect(await namesUs(new Blob([bytes(`${PNG}tEXtSoftware\0GIMP`)]))).toBe(false);
});
