/**
 * Pictures that people brought, as they are: what was painted into one is put back into it at its
 * own size, also after a reload. They stay in this browser.
 */

const NAME = "asymflow";
const STORE = "originals";
/** So many are kept, the newest. */
const KEPT = 6;

interface Original {
  id: string;
  at: number;
  file: Blob;
}

function opened(): Promise<IDBDatabase> {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
  return done(request);
}

const done = <T>(request: IDBRequest<T>): Promise<T> =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error as DOMException);
  });

async function within<T>(
  mode: IDBTransactionMode,
  act: (store: IDBObjectStore) => Promise<T>,
): Promise<T> {
  const database = await opened();
  try {
    return await act(database.transaction(STORE, mode).objectStore(STORE));
  } finally {
    database.close();
  }
}

/** Keep the file that became an upload. Without room for it, smaller ones are kept by the server. */
export async function keepOriginal(id: string, file: Blob): Promise<void> {
  const keep = async (store: IDBObjectStore) => {
    await done(store.put({ id, at: Date.now(), file } satisfies Original));
    const all = (await done(store.getAll())) as Original[];
    const old = all.sort((a, b) => b.at - a.at).slice(KEPT);
    await Promise.all(old.map((each) => done(store.delete(each.id))));
  };
  await within("readwrite", keep).catch(noRoom);
}

/** The file that became an upload, if this browser brought it. */
export async function original(id: string): Promise<Blob | null> {
  const find = async (store: IDBObjectStore) =>
    ((await done(store.get(id))) as Original | undefined)?.file ?? null;
  return within("readonly", find).catch(noRoom);
}

/** Private windows and full disks keep nothing. */
function noRoom(cause: unknown): null {
  if (cause instanceof DOMException) return null;
  throw cause;
}
