//! Every kind of event that is known, and what it is taken to say.

use crate::{fixture, fixture_names, parse, pieces, summary};

#[test]
fn every_fixture_says_what_it_should() {
    let mut listed = Vec::new();
    for (name, kind, expected) in FIXTURES {
        let body = fixture(name).to_string();
        let pieces = pieces(body.clone());
        let [piece] = &pieces[..] else { panic!("{name}: {} pieces", pieces.len()) };
        let inbound = parse(piece);
        assert_eq!(summary(&inbound), *expected, "{name}");
        assert_eq!(piece.kind().name(), *kind, "{name}");
        assert_eq!(inbound.contact.handles[0], *piece.handle(), "{name}: the key's handle stands first");
        assert_eq!(piece.body(), body.as_bytes(), "{name}: the platform's own bytes");
        listed.push(*name);
    }
    assert_eq!(listed, fixture_names(), "every file has its line");
}

/// File, kind of piece, and what it says. `~` stands for what all ids have in common.
const FIXTURES: &[(&str, &str, &str)] = &[
    (
        "account-update-restriction",
        "account",
        r#"account.state_changed {"field":"account_update","value":{"event":"ACCOUNT_RESTRICTION","restriction_info":[{"expiration":1795255200,"restriction_type":"RESTRICTED_BIZ_INITIATED_MESSAGING"}]}} | 1795168800 | account:"#,
    ),
    (
        "audio-voice",
        "message",
        r#"message "type":"audio","audio":{"id":"1003383421387257","mime_type":"audio/ogg; codecs=opus","sha256":"m04pFf2ERdaopTyFkGPA0+bX3i+YY2dYgVFwOgDLSDI=","voice":true} | wamid~09AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "business-capability-update",
        "account",
        r#"account.state_changed {"field":"business_capability_update","value":{"max_daily_conversations_per_business":2000,"max_phone_numbers_per_business":25}} | 1795168800 | account:"#,
    ),
    (
        "button-template-quick-reply",
        "message",
        r#"message "type":"interactive_reply","interactive_reply":{"kind":"template_button","id":"STOP_PROMO","title":"Stop promotions"} to wamid~90AA== | wamid~23AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "call-connect-user-initiated",
        "other",
        r#"platform call.connect {"direction":"USER_INITIATED","event":"connect","from":"16505551234","id":"wacid.HBgLMTY1MDU1NTEyMzQVAgASEXAMPLE","session":{"sdp":"<<RFC 8866 SDP>>","sdp_type":"offer"},"timestamp":"1795168800","to":"15550783881"} | wacid.HBgLMTY1MDU1NTEyMzQVAgASEXAMPLE connect | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "call-terminate",
        "other",
        r#"platform call.terminate {"direction":"USER_INITIATED","duration":120,"end_time":"1795168920","event":"terminate","from":"16505551234","id":"wacid.HBgLMTY1MDU1NTEyMzQVAgASEXAMPLE","start_time":"1795168800","status":"COMPLETED","timestamp":"1795168920","to":"15550783881"} | wacid.HBgLMTY1MDU1NTEyMzQVAgASEXAMPLE terminate | 1795168920 | phone:16505551234"#,
    ),
    (
        "contacts",
        "message",
        r#"message "type":"contacts","contacts":[{"emails":[{"email":"alex@example.com","type":"WORK"}],"name":{"first_name":"Alex","formatted_name":"Alex Example","last_name":"Example"},"org":{"company":"Example Ltd"},"phones":[{"phone":"+1 202-555-0143","type":"CELL","wa_id":"12025550143"}]}] | wamid~15AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "contacts-from-contact-request",
        "message",
        r#"message "type":"contacts","contacts":[{"name":{"first_name":"Test","formatted_name":"Test Customer"},"origin":"contact_request","phones":[{"phone":"+1 650-555-1234","type":"CELL","wa_id":"16505551234"}],"vcard":"BEGIN:VCARD\nVERSION:3.0\nFN:Test Customer\nTEL;waid=16505551234:+1 650-555-1234\nEND:VCARD"}] to wamid~92AA== | wamid~16AA==  | 1795168800 | bsuid:US.1349~ | Test Customer | test.customer | opens"#,
    ),
    (
        "document",
        "message",
        r#"message "type":"document","document":{"id":"1003383421387259","mime_type":"application/pdf","sha256":"grwfwe/ZPx0wAbdfbdeFUNItPZ0RylL8gGUvdt3YFqc=","caption":"Invoice","filename":"invoice-1001.pdf"} | wamid~11AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "edit",
        "message",
        r#"edit wamid~01AA== "type":"text","text":{"body":"Does it come in green?"} | wamid~29AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer"#,
    ),
    (
        "errors-out-of-band",
        "account",
        r#"account.state_changed {"detail":"130429: Rate limit hit","field":"errors","reason":"rate_limited","value":{"code":130429,"error_data":{"details":"Message failed to send because there were too many messages sent from this phone number in a short period of time"},"message":"Rate limit hit","title":"Rate limit hit"}} | 0 | account:"#,
    ),
    (
        "image",
        "message",
        r#"message "type":"image","image":{"id":"1003383421387256","link":"https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1003383421387256&source=webhook&ext=1795169100&hash=EXAMPLE","mime_type":"image/jpeg","sha256":"SfInY0gGKTsJlUWbwxC1k+FAD0FZHvzwfpvO0zX0GUI=","caption":"The broken part"} | wamid~08AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "interactive-button-reply",
        "message",
        r#"message "type":"interactive_reply","interactive_reply":{"kind":"button","id":"confirm-order","title":"Confirm"} to wamid~90AA== | wamid~19AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "interactive-call-permission-reply",
        "message",
        r#"message "type":"interactive_reply","interactive_reply":{"kind":"call_permission","id":"accept","data":{"expiration_timestamp":1795773600,"response":"accept","response_source":"user_action"}} to wamid~90AA== | wamid~22AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "interactive-list-reply",
        "message",
        r#"message "type":"interactive_reply","interactive_reply":{"kind":"list","id":"priority_express","title":"Priority Mail Express","description":"Next day to 2 days"} to wamid~90AA== | wamid~20AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "interactive-nfm-reply",
        "message",
        r#"message "type":"interactive_reply","interactive_reply":{"kind":"form","id":"flow","title":"Sent","data":{"first_name":"Test","flow_token":"tok-1","slot":"2026-11-21T09:00"}} to wamid~90AA== | wamid~21AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "location",
        "message",
        r#"message "type":"location","location":{"latitude":37.44216251868683,"longitude":-122.16153582049394,"name":"Example Plaza","address":"1 Example St, Exampletown","url":"https://maps.example.com/?cid=1"} | wamid~13AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "location-current",
        "message",
        r#"message "type":"location","location":{"latitude":12.25089,"longitude":43.90539} | wamid~14AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "messaging-handovers",
        "other",
        r#"platform messaging_handovers {"control_passed":{"metadata":"Information about the conversation"},"messaging_product":"whatsapp","recipient":{"display_phone_number":"15550783881","phone_number_id":"106540352242922"},"sender":{"phone_number":"16505551234"},"timestamp":"1795168800"} | 1795168800 | phone:16505551234"#,
    ),
    (
        "order",
        "message",
        r#"message "type":"order","order":{"catalog_id":"194836987003835","product_items":[{"currency":"USD","item_price":30,"product_retailer_id":"SKU-1001","quantity":2},{"currency":"USD","item_price":25.5,"product_retailer_id":"SKU-1002","quantity":1}],"text":"Love these!"} | wamid~24AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "phone-number-quality-update",
        "account",
        r#"account.state_changed {"field":"phone_number_quality_update","value":{"current_limit":"TIER_2K","display_phone_number":"15550783881","event":"ONBOARDING"}} | 1795168800 | account:"#,
    ),
    (
        "reaction",
        "reaction",
        r#"reaction Some("👍") on wamid~90AA== | wamid~17AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer"#,
    ),
    (
        "reaction-removed",
        "reaction",
        r#"reaction None on wamid~90AA== | wamid~18AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer"#,
    ),
    ("revoke", "message", r#"delete ["wamid~01AA=="] | wamid~30AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer"#),
    (
        "smb-message-echo",
        "message",
        r#"echo "type":"text","text":{"body":"Sent by a colleague from the phone app"} | wamid~40AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer"#,
    ),
    (
        "standby-message",
        "message",
        r#"message "type":"text","text":{"body":"Talking to the Meta Business Agent"} | wamid~41AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | {"standby":true}"#,
    ),
    (
        "status-delivered",
        "status",
        r#"status wamid~90AA== delivered delivered reason=none detail=None callback=None {"pricing":{"billable":true,"category":"service","pricing_model":"PMP","type":"regular"}} | wamid~90AA== delivered | 1795168805 | phone:16505551234 bsuid:US.1349~ | Test Customer"#,
    ),
    (
        "status-failed-undeliverable",
        "status",
        r#"status wamid~90AA== failed failed reason=recipient_invalid detail=Some("131026: Message undeliverable") callback=None {} | wamid~90AA== failed | 1795168806 | phone:16505551234"#,
    ),
    (
        "status-failed-window-closed",
        "status",
        r#"status wamid~90AA== failed failed reason=window_closed detail=Some("131047: Re-engagement message") callback=None {} | wamid~90AA== failed | 1795168806 | phone:16505551234"#,
    ),
    (
        "status-played",
        "status",
        r#"status wamid~90AA== read played reason=none detail=None callback=None {} | wamid~90AA== played | 1795168805 | phone:16505551234 bsuid:US.1349~ | Test Customer"#,
    ),
    (
        "status-read",
        "status",
        r#"status wamid~90AA== read read reason=none detail=None callback=None {} | wamid~90AA== read | 1795168805 | phone:16505551234 bsuid:US.1349~ | Test Customer"#,
    ),
    (
        "status-read-group",
        "status",
        r#"status wamid~90AA== read read reason=none detail=None callback=None {} | wamid~90AA== read/16505551234 | 1795168809 | group:Y2FwaV9ncm91cDoxMjM0NQ | {"group_id":"Y2FwaV9ncm91cDoxMjM0NQ","participant":{"bsuid":"US.1349~","name":"Test Customer","phone":"+16505551234"}}"#,
    ),
    (
        "status-sent",
        "status",
        r#"status wamid~90AA== sent sent reason=none detail=None callback=Some("gw-msg-0001") {"pricing":{"billable":true,"category":"service","pricing_model":"PMP","type":"regular"}} | wamid~90AA== sent | 1795168805 | phone:16505551234 bsuid:US.1349~ | Test Customer"#,
    ),
    (
        "status-sent-free-entry-point",
        "status",
        r#"status wamid~90AA== sent sent reason=none detail=None callback=None {"conversation":{"expiration_timestamp":"1795428000","id":"7270432eae37498234f4444b35ffc5aa","origin":{"type":"referral_conversion"}},"pricing":{"billable":false,"category":"referral_conversion","pricing_model":"PMP","type":"free_entry_point"}} | wamid~90AA== sent | 1795168805 | phone:16505551234 bsuid:US.1349~ | Test Customer"#,
    ),
    (
        "sticker-animated",
        "message",
        r#"message "type":"sticker","sticker":{"id":"1003383421387260","mime_type":"image/webp","sha256":"HcwyCKrTKXHk0a00ms4HWIA76GY0Du6q4Z5iuwevwAA=","animated":true} | wamid~12AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "system-customer-identity-changed",
        "other",
        r#"platform system.customer_identity_changed {"from":"16505551234","id":"wamid~27AA==","identity":{"acknowledged":true,"created_timestamp":"1795168800","hash":"Sjvjlx8G6Z0="},"system":{"body":"User identity changed","type":"customer_identity_changed"},"timestamp":"1795168800","type":"system"} | wamid~27AA==  | 1795168800 | phone:16505551234 | Test Customer | {"identity":{"acknowledged":true,"created_timestamp":"1795168800","hash":"Sjvjlx8G6Z0="}}"#,
    ),
    (
        "system-user-changed-number",
        "other",
        r#"rekeyed phone:12025550143 bsuid:US.99887766554433221100 | wamid~25AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~"#,
    ),
    ("system-user-changed-user-id", "other", r#"rekeyed bsuid:US.99887766554433221100 | wamid~26AA==  | 1795168800 | bsuid:US.1349~"#),
    (
        "template-quality-update",
        "account",
        r#"template.changed {"field":"message_template_quality_update","value":{"message_template_id":806312974732579,"message_template_language":"en_US","message_template_name":"welcome_template","new_quality_score":"YELLOW","previous_quality_score":"GREEN"}} | 1795168800 | account:"#,
    ),
    (
        "template-status-update",
        "account",
        r#"template.changed {"field":"message_template_status_update","value":{"event":"REJECTED","message_template_category":"MARKETING","message_template_id":1689556908129835,"message_template_language":"en","message_template_name":"abandoned_cart","reason":"INVALID_FORMAT"}} | 1795168800 | account:"#,
    ),
    (
        "text",
        "message",
        r#"message "type":"text","text":{"body":"Does it come in another color?"} | wamid~01AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "text-bsuid-only",
        "message",
        r#"message "type":"text","text":{"body":"Hello from a username account"} | wamid~06AA==  | 1795168800 | bsuid:US.1349~ | Test Customer | test.customer | opens"#,
    ),
    (
        "text-forwarded",
        "message",
        r#"message "type":"text","text":{"body":"Saw this offer"} | wamid~03AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens | {"frequently_forwarded":true}"#,
    ),
    (
        "text-group",
        "message",
        r#"message "type":"text","text":{"body":"Hello group"} | wamid~07AA==  | 1795168800 | group:Y2FwaV9ncm91cDoxMjM0NQ | opens | {"group_id":"Y2FwaV9ncm91cDoxMjM0NQ","participant":{"bsuid":"US.1349~","name":"Test Customer","phone":"+16505551234"}}"#,
    ),
    (
        "text-referral-ctwa-ad",
        "message",
        r#"message "type":"text","text":{"body":"Hi! I saw your ad"} | wamid~04AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens | {"referral":{"body":"Summer succulents are here!","ctwa_clid":"Aff-EXAMPLECLICKID","headline":"Chat with us","image_url":"https://scontent.example.net/v/ad.jpg","media_type":"image","source_id":"120226305854810726","source_type":"ad","source_url":"https://fb.me/example","welcome_message":{"text":"Hi there! Let us know how we can help!"}}}"#,
    ),
    (
        "text-referred-product",
        "message",
        r#"message "type":"text","text":{"body":"Is this in stock?"} to wamid~91AA== | wamid~05AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens | {"referred_product":{"catalog_id":"194836987003835","product_retailer_id":"SKU-1001"}}"#,
    ),
    (
        "text-reply-context",
        "message",
        r#"message "type":"text","text":{"body":"Yes, that one"} to wamid~90AA== | wamid~02AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "unsupported",
        "message",
        r#"message "type":"unsupported","unsupported":{"kind":"unsupported","raw":{"errors":[{"code":131051,"error_data":{"details":"Message type is currently not supported."},"message":"Message type unknown","title":"Message type unknown"}],"from":"16505551234","from_user_id":"US.1349~","id":"wamid~28AA==","timestamp":"1795168800","type":"unsupported","unsupported":{"type":"poll"}}} | wamid~28AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens"#,
    ),
    (
        "user-preferences-stop",
        "other",
        r#"preference opted_out=true marketing_messages | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer"#,
    ),
    (
        "video-forwarded",
        "message",
        r#"message "type":"video","video":{"id":"1003383421387258","mime_type":"video/mp4","sha256":"Jh+2ij6PzUv/J2y+grrtegr/ZMzRxkEPwc24Oyib4s0=","caption":"look"} | wamid~10AA==  | 1795168800 | phone:16505551234 bsuid:US.1349~ | Test Customer | opens | {"forwarded":true}"#,
    ),
];
