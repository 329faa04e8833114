// The calls of the device API over gRPC with mutual TLS.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const PROTO = fileURLToPath(new URL('../../../proto/slimfleet/device/v1/device.proto', import.meta.url));
const CHUNK_BYTES = 16384; // 65,536 are allowed; a cut costs what has come of one
/** A check-in may be held open until there is work. */
const CHECK_IN_S = 900;
const CALL_S = 60;
const SLOWEST_BYTES_PER_S = 500;

// Numbers of 64 bits come as text.
const definition = loadSync(PROTO, { keepCase: true, longs: String, defaults: true, oneofs: true });
const { DeviceService } = grpc.loadPackageDefinition(definition).slimfleet.device.v1;

export const sha256 = (bytes) => createHash('sha256').update(bytes).digest();
const deadline = (seconds) => ({ deadline: Date.now() + 1000 * seconds });
const transfer = (bytes) => deadline(CALL_S + bytes / SLOWEST_BYTES_PER_S);

/** Whether this plan, or these bytes, are not what the gateway waits for: check in again. */
export const isNotAwaited = ({ code }) => [grpc.status.NOT_FOUND, grpc.status.FAILED_PRECONDITION].includes(code);

export class Calls {
  /** `target` is host:port, `keys` a folder of ca.crt, device.crt and device.key. */
  constructor(target, keys) {
    const [ca, key, crt] = ['ca.crt', 'device.key', 'device.crt'].map((name) => readFileSync(join(keys, name)));
    this.client = new DeviceService(target, grpc.credentials.createSsl(ca, key, crt), {
      'grpc.keepalive_time_ms': 60000,
      'grpc.keepalive_timeout_ms': 20000,
      'grpc.keepalive_permit_without_calls': 0, // an idle device stays asleep
      'grpc.max_reconnect_backoff_ms': 5000,
      'grpc.enable_retries': 0,
    });
  }

  checkIn(request) {
    return this.one('CheckIn', request, deadline(CHECK_IN_S));
  }

  report(request) {
    return this.one('Report', request, deadline(CALL_S));
  }

  /** Adds to `there`, an array of chunks, the bytes of a plan's model that it lacks. What came before a cut stays. */
  download(plan, there) {
    const offset = there.reduce((sum, chunk) => sum + chunk.length, 0);
    return new Promise((resolve, reject) => {
      const options = transfer(Number(plan.model_bytes) - offset);
      const call = this.client.DownloadModel({ plan_id: plan.plan_id, offset }, options);
      call.on('data', ({ data }) => there.push(data));
      call.on('error', reject);
      call.on('end', resolve);
    });
  }

  /** Sends an update from where the gateway has it to its end. */
  async upload(plan, update) {
    const update_sha256 = sha256(update);
    const chunk = (offset, end) => ({ plan_id: plan.plan_id, offset, data: update.subarray(offset, end), update_sha256 });
    const received = await this.send([chunk(0, 0)], CALL_S); // no data: asks how much has come
    if (received >= update.length) return;
    const starts = [];
    for (let at = received; at < update.length; at += CHUNK_BYTES) starts.push(at);
    await this.send(starts.map((at) => chunk(at, at + CHUNK_BYTES)), CALL_S + update.length / SLOWEST_BYTES_PER_S);
  }

  send(messages, patience) {
    return new Promise((resolve, reject) => {
      const call = this.client.UploadUpdate(deadline(patience), (error, answer) =>
        error ? reject(error) : resolve(Number(answer.received_bytes)),
      );
      call.on('error', () => {}); // told to the callback as well
      const more = () => {
        while (messages.length) if (!call.write(messages.shift())) return void call.once('drain', more);
        call.end();
      };
      more();
    });
  }

  one(name, request, options) {
    return new Promise((resolve, reject) => {
      this.client[name](request, options, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }

  close() {
    this.client.close();
  }
}
