// openai for JavaScript.
import OpenAI, { AuthenticationError, BadRequestError, NotFoundError, toFile } from "openai";
import { deflateSync } from "node:zlib";

const base = `${process.env.SERVER}/v1`;
const client = new OpenAI({ baseURL: base, apiKey: process.env.TOKEN, maxRetries: 2 });
const small = { size: "64x64", quality: "low" };

// A PNG of 64 x 64 pixels whose left half has one colour and whose right half another.
function png(left, right) {
  const table = Array.from({ length: 256 }, (_, n) => {
    for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
    return n;
  });
  const sum = (data) =>
    (data.reduce((crc, byte) => (crc >>> 8) ^ table[(crc ^ byte) & 255], 0xffffffff) ^ 0xffffffff) >>> 0;
  const chunk = (name, body) => {
    const named = Buffer.concat([Buffer.from(name), body]);
    const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(body.length);
    check.writeUInt32BE(sum(named));
    return Buffer.concat([length, named, check]);
  };
  const head = Buffer.from([0, 0, 0, 64, 0, 0, 0, 64, 8, left.length === 4 ? 6 : 2, 0, 0, 0]);
  const row = [0, ...Array(32).fill(left).flat(), ...Array(32).fill(right).flat()];
  const rows = deflateSync(Buffer.from(Array(64).fill(row).flat()));
  const signature = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);
  return Buffer.concat([signature, chunk("IHDR", head), chunk("IDAT", rows), chunk("IEND", Buffer.alloc(0))]);
}

const picture = () => toFile(png([0, 200, 0], [0, 200, 0]), "a.png", { type: "image/png" });
const alpha = () => toFile(png([0, 0, 0, 255], [0, 0, 0, 0]), "m.png", { type: "image/png" });
const opaque = () => toFile(png([0, 0, 0, 255], [255, 255, 255, 255]), "m.png", { type: "image/png" });
const grey = () => toFile(png([0, 0, 0], [255, 255, 255]), "m.png", { type: "image/png" });

function equal(found, wanted) {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${a} is not ${b}`);
}

function size(text) {
  const data = Buffer.from(text, "base64");
  equal(data.subarray(1, 4).toString(), "PNG");
  return [data.readUInt32BE(16), data.readUInt32BE(20)];
}

async function raises(kind, status, call) {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof kind)) throw error;
    equal(error.status, status);
    return error;
  }
  throw new Error(`${kind.name} was not raised`);
}

const checks = {
  async generates() {
    const answer = await client.images.generate({ model: "gpt-image-1", prompt: "a fox", ...small });
    equal(size(answer.data[0].b64_json), [64, 64]);
  },
  async "generates several"() {
    const answer = await client.images.generate({ prompt: "a fox", n: 3, ...small });
    equal(new Set(answer.data.map((each) => each.b64_json)).size, 3);
  },
  async "knows every size"() {
    for (const [w, h] of [[256, 256], [512, 512], [1024, 1024], [1792, 1024], [1024, 1536]]) {
      const answer = await client.images.generate({ prompt: "a fox", size: `${w}x${h}`, quality: "low" });
      equal(size(answer.data[0].b64_json), [w, h]);
    }
  },
  async "knows every quality"() {
    for (const [quality, told] of Object.entries({ auto: "medium", low: "low", medium: "medium", high: "high", standard: "medium", hd: "high" })) {
      const answer = await client.images.generate({ prompt: "a fox", size: "32x32", quality });
      equal(answer.quality, told);
    }
  },
  async "dall-e answers addresses"() {
    for (const model of ["dall-e-2", "dall-e-3"]) {
      const answer = await client.images.generate({ model, prompt: "a fox", ...small });
      const file = await fetch(answer.data[0].url);
      equal([file.status, file.headers.get("content-type")], [200, "image/png"]);
    }
  },
  async "response format decides"() {
    const answer = await client.images.generate({ model: "dall-e-3", prompt: "a fox", response_format: "b64_json", ...small });
    equal(size(answer.data[0].b64_json), [64, 64]);
  },
  async "streams partial images"() {
    const kinds = [];
    for await (const event of await client.images.generate({ prompt: "a fox", size: "64x64", quality: "medium", stream: true, partial_images: 2 })) {
      size(event.b64_json);
      kinds.push(event.type.split(".")[1]);
    }
    equal(kinds, ["partial_image", "partial_image", "completed"]);
  },
  async edits() {
    const answer = await client.images.edit({ image: await picture(), prompt: "a fox", ...small });
    equal(size(answer.data[0].b64_json), [64, 64]);
  },
  async "edits a list of one"() {
    const answer = await client.images.edit({ image: [await picture()], prompt: "a fox", ...small });
    equal(size(answer.data[0].b64_json), [64, 64]);
  },
  async "edits with a transparent mask"() {
    const answer = await client.images.edit({ image: await picture(), mask: await alpha(), prompt: "a fox", ...small });
    equal(answer.asymflow.mask, "transparent");
  },
  async "edits with a black and white mask"() {
    const { data, response } = await client.images
      .edit({ image: await picture(), mask: await grey(), prompt: "a fox", ...small })
      .withResponse();
    equal([response.headers.get("x-asymflow-mask"), data.asymflow.mask], ["white", "white"]);
  },
  async "streams an edit"() {
    const kinds = [];
    for await (const event of await client.images.edit({ image: await picture(), mask: await alpha(), prompt: "a fox", size: "64x64", quality: "medium", stream: true, partial_images: 1 })) {
      kinds.push(event.type);
    }
    equal(kinds, ["image_edit.partial_image", "image_edit.completed"]);
  },
  async "a long prompt is cut and that is said"() {
    const prompt = "a red fox who sleeps in the snow, ".repeat(200);
    const { response } = await client.images.generate({ prompt, ...small }).withResponse();
    equal(response.headers.get("x-asymflow-cut"), "prompt");
  },
  async "raises what is wrong"() {
    const error = await raises(BadRequestError, 400, () => client.images.generate({ prompt: "a fox", size: "7x7" }));
    equal([error.param, error.code], ["size", "invalid_value"]);
    const masked = await raises(BadRequestError, 400, async () =>
      client.images.edit({ image: await picture(), mask: await opaque(), prompt: "a fox" }),
    );
    equal([masked.param, masked.code], ["mask", "invalid_mask"]);
    await raises(BadRequestError, 400, () => client.images.generate({ prompt: "x".repeat(32001) }));
    await raises(NotFoundError, 404, () => client.models.retrieve("dall-e-9"));
    const stranger = new OpenAI({ baseURL: base, apiKey: "wrong" });
    await raises(AuthenticationError, 401, () => stranger.images.generate({ prompt: "a fox" }));
  },
};

for (const [check, call] of Object.entries(checks)) {
  const error = await call().then(() => null, (thrown) => String(thrown.stack ?? thrown).slice(0, 1500));
  console.log(JSON.stringify({ check, error }));
}
