// The identity provider that the tests start: oidc-provider as it is, told by one JSON text which clients and features it
// has. It prints where it listens, and tells what it did on two pages of its own.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import http from 'node:http';
import Provider from 'oidc-provider';
// Its own memory, which it would else begin anew with other keys.
import { createMemoryAdapter } from './node_modules/oidc-provider/lib/adapters/memory_adapter.js';

const { clients, ttl = {}, features = {}, findAccount = true } = JSON.parse(process.argv[2]);
const counts = { granted: 0, refused: 0, reused: 0, keys: 0 };

const server = http.createServer();
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

if (features.dPoP) features.dPoP = { enabled: true, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => true };
const adapter = createMemoryAdapter();
const made = (jwks) => {
  const provider = new Provider(issuer, {
    adapter,
    clients,
    ttl,
    // Its own refuses loopback addresses, where everything is here.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
    ...(jwks && { jwks }),
    scopes: ['openid', 'offline_access', 'orders'],
    claims: { openid: ['sub'], email: ['email'] },
    rotateRefreshToken: true,
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none'],
    features: { resourceIndicators: { enabled: false }, revocation: { enabled: true }, devInteractions: { enabled: true }, ...features },
    findAccount: findAccount ? async (_, sub) => ({ accountId: sub, claims: async () => ({ sub, email: `${sub}@example.com` }) }) : undefined,
  });
  provider.on('grant.success', () => { counts.granted += 1; });
  provider.on('grant.error', () => { counts.refused += 1; });
  provider.on('grant.revoked', () => { counts.reused += 1; });
  return provider;
};
let provider = made();
let answer = provider.callback();
const rotate = () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const jwk = { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };
  provider = made({ keys: [jwk] });
  answer = provider.callback();
};

server.on('request', async (request, response) => {
  const url = new URL(request.url, issuer);
  const tell = (told) => response.setHeader('content-type', 'application/json').end(JSON.stringify(told));
  if (url.pathname === '/counts') return tell(counts);
  if (url.pathname === '/rotate') return tell(rotate() ?? null);
  if (url.pathname === '/knows') {
    const token = url.searchParams.get('token');
    const found = (await provider.ClientCredentials.find(token)) ?? (await provider.AccessToken.find(token));
    return tell(found !== undefined && found.isValid);
  }
  if (url.pathname === '/bound') {
    const token = url.searchParams.get('token');
    const found = (await provider.ClientCredentials.find(token)) ?? (await provider.AccessToken.find(token));
    return tell(found?.jkt ?? null);
  }
  if (url.pathname === '/jwks') counts.keys += 1;
  return answer(request, response);
});
console.log(`listening on ${issuer}`);
