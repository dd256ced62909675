# shellcheck shell=bash
# The breaks, and the tests that must notice each. Sourced by run, which says what a mutation is.

# Endings

mutation 'a new password ends nothing' src/mirror/ending.rs it 'decisions::' <<'EOF'
        Route::UserUpdate if sets_password(asked) => {
---
        Route::UserUpdate if sets_password(asked) && false => {
EOF

mutation 'a logout with local scope is global' src/scope.rs it 'sessions::logout' <<'EOF'
            Some("local") => Self::Local,
---
            Some("local") => Self::Global,
EOF

mutation 'a logout waits for GoTrue before its own session ends' src/proxy/mirrored.rs it 'sessions::logout' <<'EOF'
        self.before().await;
---
        if self.timing.sent.is_some() { self.before().await; }
EOF

mutation 'a logout of the others ends its own session' src/store/common.lua it 'store::conformance' <<'EOF'
    return id ~= rule.subject and (rule.which == 'others' or record.aal == 'aal1')
---
    return rule.which == 'others' or (id ~= rule.subject and record.aal == 'aal1')
EOF

mutation 'an ending sets no tombstone' src/store/carry_out.lua it 'store::conformance' <<'EOF'
  if redis.call('SET', key, value, 'EX', life(rule, latest, rule.in_gotrue, now), 'NX') then
---
  if redis.call('SET', key, value, 'EX', life(rule, latest, rule.in_gotrue, now), 'XX') then
EOF

mutation 'a global logout sets no mark' src/store/end.lua it 'store:: sessions::logout' <<'EOF'
if rule.which == 'all' then
  local not_before
---
if rule.which == 'nobody' then
  local not_before
EOF

mutation 'an ending hits what began after it' src/store/end.lua it 'store::conformance' <<'EOF'
  if number(there.began_ms) > rule.sent_ms then
---
  if number(there.began_ms) > 2 * rule.sent_ms then
EOF

mutation 'a removed factor lowers every session' src/store/common.lua it 'store::conformance' <<'EOF'
      if record.factor_id == rule.subject then
---
      if record.factor_id ~= '' then
EOF

mutation 'a change that is pending is not looked at' src/store/common.lua it 'store::pending store::differential' <<'EOF'
      if is_meant(rule, place.id, record) then
---
      if rule.which == 'nobody' then
EOF

mutation 'a second factor ends nobody' src/mirror/record.rs it 'decisions::' <<'EOF'
                decision.changes.extend(others);
---
                drop(others);
EOF

# Records

mutation 'a revoked session is written back' src/store/record.lua it 'store::conformance' <<'EOF'
if buried then
---
if buried == 'nobody' then
EOF

mutation 'the older refresh stands' src/store/record.lua it 'store::conformance' <<'EOF'
    return number(new.refreshed_at) > number(old.refreshed_at)
---
    return number(new.refreshed_at) < number(old.refreshed_at)
EOF

mutation 'a record never expires' src/store/record.lua it 'store::' <<'EOF'
  redis.call('EXPIRE', KEYS[1], ttl)
---
  -- no life
EOF

mutation 'a refresh gives a record no longer life' src/store/record.lua it 'store::' <<'EOF'
  extend(KEYS[1], ttl)
---
  -- no life
EOF

mutation 'a refresh leaves what it does not say' src/store/record.lua it 'store::' <<'EOF'
      redis.call('HDEL', KEYS[1], name)
---
      local _ = name
EOF

mutation 'ids that contradict each other are recorded' src/mirror/record.rs it 'sessions::answers' <<'EOF'
    if odd || ids.any(|other| other != first) {
---
    if odd && ids.any(|other| other != first) {
EOF

mutation 'every token of /token is a sign-in' src/mirror/record.rs it 'sessions::sign_in sessions::revoked' <<'EOF'
        Route::Token => !asked.is_refresh(),
---
        Route::Token => true,
EOF

mutation 'a revoked session gets its tokens' src/proxy/mirrored.rs it 'sessions::revoked' <<'EOF'
            Route::Token | Route::OauthToken => Some(of_refresh),
---
            Route::Token | Route::OauthToken => None,
EOF

# Proof

mutation 'a session header of a client gets through' src/headers.rs it 'sessions::answers' <<'EOF'
same(bytes.get(..8).unwrap_or_default(), b"sb-auth-"),
---
same(bytes.get(..8).unwrap_or_default(), b"sb-auth+"),
EOF

mutation 'a refusal is believed whoever signed the token' src/mirror/refusal.rs it 'sessions::proof' <<'EOF'
    match asked.bearer.map(Verdict::proven) {
---
    match asked.bearer.map(Verdict::claimed) {
EOF

mutation 'a forged token does what GoTrue agrees to' src/keys.rs it 'sessions::proof' <<'EOF'
        Some(unnamed.any(|key| key.signed(token)))
---
        Some(unnamed.any(|key| !token.signed.is_empty() || key.signed(token)))
EOF

mutation 'the algorithm is the token'"'"'s choice' src/keys.rs it 'sessions::proof' <<'EOF'
                self.keys().filter(named).any(|key| key.algorithm == token.algorithm && key.signed(token)),
---
                self.keys().filter(named).any(|key| key.signed(token)),
EOF

mutation 'a published secret verifies' src/keys.rs lib 'keys::' <<'EOF'
            .filter(|key| key.algorithm != Algorithm::HS256)
---
            .filter(|key| key.algorithm != Algorithm::EdDSA)
EOF

mutation 'a reference counts without the record' src/store/redis.rs it 'store::conformance' <<'EOF'
        Ok(reply::texts(reply::first(&replies)?)?.contains(&Some(token.as_str())))
---
        Ok(reply::texts(reply::first(&replies)?)?.contains(&Some(token.as_str())) || !replies.is_empty())
EOF

mutation 'what became of a session is asked of the part that names its token' src/sessions/ended.rs it 'outage::cluster' <<'EOF'
        let (lane, holder) = (self.store.lane_of(noted.0),
---
        let (lane, holder) = (self.store.lane_of_token(token),
EOF

mutation 'a late sign-in that a global ending meant leaves no tombstone' src/store/record.lua it 'store::conformance' <<'EOF'
    end_as(reason, in_gotrue, new, old)
    return 'revoked'
---
    return 'revoked'
EOF

mutation 'a token that is not verified touches' src/sessions.rs it 'sessions::lookup' <<'EOF'
        Verdict::NoKeys(claims) | Verdict::UnknownKey(claims) => (claims, false),
---
        Verdict::NoKeys(claims) | Verdict::UnknownKey(claims) => (claims, true),
EOF

mutation 'keys are fetched whenever one is unknown' src/jwks.rs it 'sessions::keys::a_storm' <<'EOF'
        self.began.is_none_or(|began| began.elapsed() >= age)
---
        self.began.is_none_or(|began| began.elapsed() >= age / 1000)
EOF

mutation 'keys are not fetched for lookups' src/jwks.rs it 'sessions::keys::a_key' <<'EOF'
            self.is_wanted.store(true, Relaxed);
---
            self.is_wanted.store(false, Relaxed);
EOF

# Bans

mutation 'the end of a ban is not seen' src/mirror/ending.rs it 'decisions::' <<'EOF'
        None => Ok(None),
        Some(text) => rfc3339
---
        None => Err(Unreadable),
        Some(text) => rfc3339
EOF

mutation 'of two bans the one that is written last stands' src/store/suspend.lua it 'store::' <<'EOF'
elseif number(ms) > number(decided_ms) then
---
elseif number(ms) > 0 then
EOF

mutation 'tokens lift no ban' src/store/record.lua it 'sessions::bans' <<'EOF'
allow(ARGV[5], marked[3], marked[4], marked[5])
---
-- no proof
EOF

mutation 'a traded code lifts a ban' src/mirror/record.rs it 'sessions::bans' <<'EOF'
        Route::Token => asked.is_refresh() || is_grant(asked.query, "password"),
---
        Route::Token => asked.is_refresh() || !is_grant(asked.query, "password"),
EOF

mutation 'enforce lets revoked sessions in' src/sessions.rs it 'sessions::lookup' <<'EOF'
            Ok(State::Revoked) => Standing::Revoked,
---
            Ok(State::Revoked) => Standing::Open,
EOF

mutation 'enforce keeps from signing in' src/proxy.rs it 'sessions::bans' <<'EOF'
            if sessions.enforce && facts.asks_for_token() {
---
            if sessions.enforce {
EOF

# The audit

mutation 'the audit passes over rows that the store lacks' src/drift/compare.rs it 'drift::causes' <<'EOF'
        Held::Nothing { .. } => differ(Cause::Unknown),
---
        Held::Nothing { .. } => Finding::Agree,
EOF

mutation 'a repair amends what has changed since' src/store/amend.lua it 'drift::races drift::causes store::pending' <<'EOF'
if not stored[1] or stored[1] ~= ARGV[3] or (stored[2] or '') ~= ARGV[4] then
---
if not stored[1] then
EOF

mutation 'a repair does not look at what waits' src/store/amend.lua it 'store::pending' <<'EOF'
if carry_out_waiting() then
---
if false then
EOF

# What the mirror never saw

mutation 'a mark says nothing of sessions without a record' src/store/lookup.lua it 'store::conformance sessions::revoked' <<'EOF'
tonumber(ARGV[4]), limits
---
nil, limits
EOF

# Sweeps

mutation 'a sweep that broke off is forgotten' src/sessions/making.rs it 'sessions::sweeps' <<'EOF'
                    self.unswept.add(user);
---
                    self.unswept.done();
EOF

mutation 'an index of expired survivors stays for ever' src/store/carry_out.lua it 'store::pending' <<'EOF'
      extend(chain.base .. ':sessions', math.max(fate.longest - now, 1)) -- also where all of them expired meanwhile
---
      if fate.longest > now then extend(chain.base .. ':sessions', fate.longest - now) end
EOF

# Limits

mutation 'a refresh asks for no limit' src/store/record.lua it 'store::limits' <<'EOF'
if origin == 'refresh' and is_over(known and old, new) then
---
if origin == 'nobody' and is_over(known and old, new) then
EOF

mutation 'an outage counts as idle time' src/store/common.lua it 'store::limits' <<'EOF'
number(record.seen_at), limits.noted_since)
---
number(record.seen_at))
EOF

mutation 'what a check remembers is as old as the answer that told it' src/check/states.rs it 'check::staleness' <<'EOF'
            states.landed(id, number, Entry { known, asked });
---
            states.landed(id, number, Entry { known, asked: Asked { at: Instant::now(), ..asked } });
EOF

mutation 'a check that waited believes what was fresh when it came' src/check.rs it 'check::staleness' <<'EOF'
            (Box::pin(self.verify(token, hash, generation)).await?, Instant::now())
---
            (Box::pin(self.verify(token, hash, generation)).await?, began)
EOF

mutation 'a check leaves whose time is over' src/check.rs it 'check::over' <<'EOF'
        if known == Known::Expired {
---
        if known == Known::Expired && began.elapsed().as_secs() > 3600 {
EOF

mutation 'a token is known by its claims' src/jwks/remembered.rs it 'check::caches' <<'EOF'
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
---
    let claims = token.rsplit_once('.').map_or(token, |(claims, _)| claims);
    let digest = digest::digest(&digest::SHA256, claims.as_bytes());
EOF

mutation 'a token outlives the keys that verified it' src/jwks/remembered.rs lib 'jwks::' <<'EOF'
        if held.generation != generation {
---
        if held.generation > generation {
EOF

mutation 'a remembered token never expires' src/jwks/remembered.rs lib 'jwks::' <<'EOF'
        if verified.expires_at().is_some_and(|end| now >= end) {
---
        if verified.expires_at().is_some_and(|end| now >= end.saturating_mul(2)) {
EOF

mutation 'each part of a Cluster tells the outage' src/breaker.rs it 'outage::cluster' <<'EOF'
                if self.away.fetch_add(1, AcqRel) == 0 {
---
                if self.away.fetch_add(1, AcqRel) < 64 {
EOF

mutation 'a hint alone refuses a refresh' src/sessions/ended.rs it 'sessions::refused' <<'EOF'
            State::Live(_) | State::Suspended(_) | State::Unknown => return None,
---
            State::Unknown => Reason::Revoked,
            State::Live(_) | State::Suspended(_) => return None,
EOF

mutation 'whoever was refused beforehand stays in GoTrue' src/proxy/mirrored.rs it 'sessions::refused' <<'EOF'
                drop(self.exchange(request, version).await);
---
                drop((request, version));
EOF

mutation 'an outage buries what only a refresh told of' src/store/common.lua it 'store::conformance' <<'EOF'
  return since > 0 or (since == 0 and rule.in_gotrue == '1' and number(record.begun_by_ms) >= rule.sent_ms)
---
  return false
EOF

mutation 'what was recorded late outlives the logout of others' src/store/end.lua it 'store::conformance' <<'EOF'
  remember('others_ended', marked[4], rule.subject)
---
  return ended
EOF

mutation 'a sign-in after a witness tells no refresh token' src/store/record.lua it 'store::conformance' <<'EOF'
  if new.refresh_ref and not old.refresh_ref then
---
  if false then
EOF

mutation 'a user has one session too many' src/store/cap.lua it 'store::cap store::differential' <<'EOF'
  return count_of(of) >= of.most and #living(of, of.most) >= of.most
---
  return count_of(of) > of.most and #living(of, of.most) >= of.most
EOF

mutation 'the youngest makes room' src/store/cap.lua it 'store::cap' <<'EOF'
  for i = #live, #live - math.min(surplus, at_once) + 1, -1 do
---
  for i = 1, math.min(surplus, at_once) do
EOF

mutation 'a sign-in that waited is denied' src/store/rules/limits.rs it 'store::cap sessions::cap' <<'EOF'
        (AboveCap::Deny, Origin::SignIn | Origin::Refresh) => None,
---
        (AboveCap::Deny, Origin::SignIn | Origin::Refresh) => Some(Room { most, evicts: 0 }),
EOF

mutation 'whoever is denied stays in GoTrue' src/proxy/cap.rs it 'sessions::cap' <<'EOF'
                proxy.complete(&sessions, ended, Some(expires_at), token).await;
---
                drop((proxy, expires_at, token));
EOF

# What waits for the store

mutation 'made-up refresh tokens count as endings' src/replay/held.rs lib 'replay::held' <<'EOF'
            What::ByRef(ByRef { fate: Fate::Ended(Reason::UnknownToGotrue), .. }) => QueuedKind::Unproven,
---
            What::ByRef(ByRef { fate: Fate::Ended(Reason::UnknownToGotrue), .. }) => QueuedKind::Ending,
EOF

mutation 'nothing goes ahead of a sign-in that finds no room' src/sessions/replaying.rs it 'outage::full' <<'EOF'
                went = self.write_ahead(first).await;
---
                went = Went::Done;
EOF

mutation 'a second factor overtakes what waits' src/store/fold.rs it 'store::folding' <<'EOF'
matches!(which, Which::One(_) | Which::Others(_) | Which::All)
---
matches!(which, Which::One(_) | Which::Others(_) | Which::All | Which::Aal1Except(_))
EOF

mutation 'what waited too long to be sure is written' src/sessions/replaying.rs it 'outage::late' <<'EOF'
                Waited::Long => self.may_be_there(queued).await?,
---
                Waited::Long => self.may_be_there(queued).await.is_some(),
EOF

mutation 'only the store knows whose a refresh token is' src/sessions/replaying.rs it 'outage::full' <<'EOF'
owner.or_else(|| self.queue.holder(&by_ref.reference));
---
owner;
EOF
