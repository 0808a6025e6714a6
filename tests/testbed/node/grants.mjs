// The grants that oidc-provider does not know by itself, as extensions of its token endpoint: the
// resource owner's password (RFC 6749 §4.3) and a service account's assertion (RFC 7523).

import { errors } from 'oidc-provider';
import { checkServiceAccount } from './assertions.mjs';
import { JWT_BEARER } from './clients.mjs';

/** @param options with `passwords` (`{ user: password }`) and `service_account` (see assertions.mjs) */
export function registerGrants(provider, options) {
  const refuse = ({ error, error_description: text }) => { throw new errors.CustomOIDCProviderError(error, text); };

  /** Answers with an access token of this user, and with a refresh token where that is meant. */
  async function issue(ctx, user, scope, gty) {
    const { client } = ctx.oidc;
    const grant = new provider.Grant({ accountId: user, clientId: client.clientId });
    grant.addOIDCScope(scope);
    const common = { accountId: user, client, grantId: await grant.save(), scope, gty };
    const accessToken = new provider.AccessToken(common);
    const body = { access_token: await accessToken.save(), token_type: 'Bearer', expires_in: accessToken.expiration };
    const isOffline = scope.split(' ').includes('offline_access') && client.grantTypeAllowed('refresh_token');
    if (isOffline) body.refresh_token = await new provider.RefreshToken({ ...common, rotations: 0 }).save();
    ctx.body = { ...body, scope };
  }

  async function onPassword(ctx) {
    const { username, password, scope } = ctx.oidc.params;
    const isRight = typeof password === 'string' && Object.hasOwn(options.passwords, username) && options.passwords[username] === password;
    if (!isRight) refuse({ error: 'invalid_grant', error_description: 'user name or password is wrong' });
    await issue(ctx, username, scope ?? 'mail', 'password');
  }

  async function onAssertion(ctx) {
    const verdict = checkServiceAccount(ctx.oidc.params.assertion, options.service_account, `${provider.issuer}/token`);
    if (verdict.error) refuse(verdict);
    await issue(ctx, verdict.user, verdict.scope, JWT_BEARER);
  }

  provider.registerGrantType('password', onPassword, ['username', 'password', 'scope']);
  provider.registerGrantType(JWT_BEARER, onAssertion, ['assertion', 'scope']);
}
