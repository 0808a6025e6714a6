// What a user sees of the provider: who are you, do you agree, and the pages of the device flow. Plain
// forms, so that a browser without scripts and a test without a browser can go through them.
//
// The login page asks for a name only. The name that the application hinted at stands there already
// and can be changed, as a user does who is logged in elsewhere with another mailbox. The consent
// page has a box for each scope, and what is not ticked is not granted.

const escape = (text) => String(text ?? '').replace(/[&<>"']/g, (each) => `&#${each.charCodeAt(0)};`);

const page = (title, body) => `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title>
</head>
<body>
<main>
<h1>${escape(title)}</h1>
${body}
</main>
</body>
</html>
`;

const loginPage = (params) => page('Log in', `<form method="post">
<p><label>User name <input name="user" value="${escape(params.login_hint)}" required autofocus></label></p>
<button name="answer" value="login">Log in</button>
</form>`);

const consentPage = (user, params) => page('Allow access?', `<p>${escape(params.client_id)} asks for access to the mailbox of ${escape(user)}.</p>
<form method="post">
${scopesOf(params).map((scope) => `<p><label><input type="checkbox" name="scope" value="${escape(scope)}" checked> ${escape(scope)}</label></p>`).join('\n')}
<button name="answer" value="allow">Allow</button>
<button name="answer" value="deny">Deny</button>
</form>`);

const scopesOf = (params) => (params.scope ?? '').split(' ').filter(Boolean);

/** The pages of oidc-provider's own that have another look here, as part of its configuration. */
export const deviceFlowPages = {
  userCodeInputSource: (ctx, form, _, error) => {
    const trouble = error ? `<p role="alert">${escape(error.userCode ? 'There is no such code.' : error.name)}</p>\n` : '';
    ctx.body = page('Enter the code', `${trouble}${form}\n<button form="op.deviceInputForm">Continue</button>`);
  },
  userCodeConfirmSource: (ctx, form, client, _, userCode) => {
    ctx.body = page('Is this the code?', `<p>${escape(client.clientId)} shows the code <code>${escape(userCode)}</code>.</p>
${form}
<button form="op.deviceConfirmForm">Continue</button>
<button form="op.deviceConfirmForm" name="abort" value="yes">Abort</button>`);
  },
  successSource: (ctx) => { ctx.body = page('Done', '<p>Go back to your device.</p>'); },
};

export function renderError(ctx, out) {
  ctx.type = 'html';
  ctx.body = page(out.error, `<p>${escape(out.error_description)}</p>`);
}

/** Serves `/interaction/<uid>`: shows the page that is due, and takes what its form says. */
export class Interactions {
  #provider;

  constructor(provider) {
    this.#provider = provider;
  }

  static isOne(path) {
    return path.startsWith('/interaction/');
  }

  /** @param form the fields of a POST; undefined for a GET */
  async answer(req, res, form) {
    const { prompt, params, session } = await this.#provider.interactionDetails(req, res);
    if (form === undefined) {
      const html = prompt.name === 'login' ? loginPage(params) : consentPage(session.accountId, params);
      res.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' }).end(html);
      return;
    }
    const result = await this.#resultOf(form, params, session);
    const isRefusal = 'error' in result;
    await this.#provider.interactionFinished(req, res, result, { mergeWithLastSubmission: !isRefusal });
  }

  async #resultOf(form, params, session) {
    if (form.get('answer') === 'login') return { login: { accountId: form.get('user').trim() } };
    if (form.get('answer') === 'deny') return { error: 'access_denied', error_description: 'End-User denied the request' };
    const ticked = new Set(form.getAll('scope'));
    const grant = new this.#provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    for (const scope of scopesOf(params)) {
      if (ticked.has(scope)) grant.addOIDCScope(scope);
      else grant.rejectOIDCScope(scope); // so that it is not asked for again
    }
    return { consent: { grantId: await grant.save() } };
  }
}
