/** A host agent's disks over its Unix socket, as a `DiskHost`: what the agent refuses is thrown here as it was thrown there. */
import http from "node:http";
import { z } from "zod";
import type { DiskHost } from "#cloud/disk-host.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import { connectUnix } from "#hypervisor/unix-socket.ts";
import {
  decodeHostError,
  HOST_API_PREFIX,
  type HostCall,
  hostCalls,
  hostError,
  type HostRequest,
  type HostResponse,
  MOST_RESPONSE_BYTES,
} from "./host-api-schemas.ts";

/**
 * Connects at each call: an agent that was restarted is found again. Errors, beside the agent's own: `machine.failing` when no
 * agent answers; its outcome is unknown once the request has left.
 */
export function openHostClient(socketPath: string): DiskHost {
  const ask = <Call extends HostCall>(
    name: Call,
    request: HostRequest<Call>,
    signal: AbortSignal,
  ): Promise<HostResponse<Call>> => callHost(socketPath, name, request, signal);
  return {
    startCapture: (request, signal) => ask("startCapture", request, signal),
    stopCapture: async (volumeId, signal) => void (await ask("stopCapture", { volumeId }, signal)),
    captures: (signal) => ask("captures", {}, signal),
    seed: (request, signal) => ask("seed", request, signal),
    seeds: (signal) => ask("seeds", {}, signal),
    exportVolume: (volumeId, signal) => ask("exportVolume", { volumeId }, signal),
    endExport: async (volumeId, signal) => void (await ask("endExport", { volumeId }, signal)),
    freeze: async (serverId, limitMs, signal) => void (await ask("freeze", { serverId, limitMs }, signal)),
    thaw: async (serverId, signal) => void (await ask("thaw", { serverId }, signal)),
    console: (serverId, signal) => ask("console", { serverId }, signal),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

async function callHost<Call extends HostCall>(
  socketPath: string,
  name: Call,
  request: HostRequest<Call>,
  signal: AbortSignal,
): Promise<HostResponse<Call>> {
  const text = await exchange(socketPath, name, JSON.stringify(request), signal);
  const { response } = hostCalls[name];
  const envelope = z.union([z.object({ result: response }), z.object({ error: hostError })]);
  const decoded = envelope.safeParse(parsed(text));
  if (!decoded.success) throw failing(`the host agent's answer to ${name} is not understood`, decoded.error);
  if ("error" in decoded.data) throw decodeHostError(decoded.data.error);
  return decoded.data.result as HostResponse<Call>;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function exchange(
  socketPath: string,
  name: HostCall,
  body: string,
  signal: AbortSignal,
): Promise<string> {
  const socket = await connectUnix(socketPath, signal);
  try {
    return await new Promise<string>((resolve, reject) => {
      const request = http.request({
        method: "POST",
        path: `${HOST_API_PREFIX}${name}`,
        headers: {
          host: "host",
          "content-type": "application/json",
          "content-length": Buffer.byteLength(body),
        },
        createConnection: () => socket,
        signal,
      });
      request.once("error", reject);
      request.once("response", (response) => {
        readAll(response).then(resolve, reject);
      });
      request.end(body);
    });
  } catch (error) {
    signal.throwIfAborted();
    if (isOperational(error)) throw error;
    throw failing(`the host agent did not answer ${name}`, error);
  } finally {
    socket.destroy();
  }
}

async function readAll(response: http.IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MOST_RESPONSE_BYTES) throw failing("the host agent's answer is too large", undefined);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function failing(message: string, cause: unknown): OperationalError {
  return new OperationalError("machine.failing", message, { outcome: "unknown", cause });
}
