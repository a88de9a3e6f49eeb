// Templates and variables that want too much: each ends soon, with an error that says at what.

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/engine/chat/chat_template.h"
#include "server/engine/chat/limits.h"
#include "tests/server/engine/chat/case_file.h"

namespace nibble {
namespace {

std::string Repeated(absl::string_view text, int count) {
  std::string repeated;
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&repeated, text);
  }
  return repeated;
}

// Renders `source` and expects RESOURCE_EXHAUSTED with `word` in its message.
void ExpectExhausted(const std::string& source, const std::string& word,
                     const TemplateJson& variables = TemplateJson::object()) {
  const auto rendered = RenderSource(source, variables);
  EXPECT_EQ(rendered.status().code(), absl::StatusCode::kResourceExhausted)
      << source.substr(0, 200) << ": " << rendered.status();
  EXPECT_TRUE(absl::StrContains(rendered.status().message(), word)) << rendered.status();
}

constexpr const char* kLoop = "{% for a in range(100000) %}{% for b in range(100000) %}";
constexpr const char* kEnd = "{% endfor %}{% endfor %}";

TEST(TemplateLimitsTest, StopsLoopsByTheirSteps) {
  ExpectExhausted(absl::StrCat(kLoop, kEnd), "steps");
  ExpectExhausted(absl::StrCat(kLoop, "{{ 1 in range(100000) | list }}", kEnd), "steps");
  ExpectExhausted(absl::StrCat(kLoop, "{% set x = a * b %}{% continue %}", kEnd), "steps");
  ExpectExhausted("{{ range(100000) | unique | list | length }}", "steps");
  ExpectExhausted("{% for x in range(100000) if false %}{% endfor %}" +
                      Repeated("{% for x in range(100000) if x < 0 %}{% endfor %}", 50),
                  "steps");
}

TEST(TemplateLimitsTest, StopsWorkOnLongStringsByItsSteps) {
  const std::string long_text = "{% set s = 'ab' * 4000000 %}{% for i in range(100000) %}";
  for (const char* work : {"{{ s.upper() | length }}", "{{ s.find('ba' ~ 'ba' * 1000 ~ 'x') }}",
                           "{{ s | tojson | length }}", "{{ s.replace('bb', '') | length }}"}) {
    ExpectExhausted(absl::StrCat(long_text, work, "{% endfor %}"), "steps");
  }
}

TEST(TemplateLimitsTest, FindsInLinearTime) {
  // The product of the lengths would be 10^13.
  const auto rendered = RenderSource(
      "{% set s = 'a' * 8000000 %}{% set w = 'a' * 4000000 ~ 'b' %}{{ w in s }}{{ s.find(w) }}"
      "{{ s.rfind('b' ~ w) }}{{ s.count(w) }}{{ s.replace(w, '') | length }}"
      "{{ s.split(w) | length }}{{ s.rsplit(w) | length }}",
      TemplateJson::object());
  ASSERT_TRUE(rendered.ok()) << rendered.status();
  EXPECT_EQ(*rendered, "False-1-10800000011");
}

TEST(TemplateLimitsTest, BoundsTheBytesOfValues) {
  for (const char* source :
       {"{{ 'x' * 100000000 }}", "{{ 'x' * 9223372036854775807 }}",
        "{{ [1, 2] * 9223372036854775807 }}", "{{ 'x'.ljust(100000000) }}",
        "{{ '%100000000d' % 1 }}", "{{ '{:100000000}'.format(1) }}",
        "{{ 'a' | center(10000000000) }}", "{{ 'a\nb' | indent(1000000000) }}",
        "{{ ('x' * 20000000) | list }}", "{{ ('x,' * 20000000).split(',') }}",
        "{{ ('a' * 10000).replace('', 'b' * 10000) }}", "{{ [1] | tojson(indent=1000000000) }}",
        "{{ 'a'.zfill(1000000000) }}", "{{ (['x' * 100000] * 10000) | join }}",
        "{{ ('x' * 1000000).join('a' * 1000) }}",
        "{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% "
        "endfor %}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(64) %}{% set ns.l = ns.l + ns.l %}{% "
        "endfor %}"}) {
    ExpectExhausted(source, "bytes");
  }
}

TEST(TemplateLimitsTest, BoundsWhatIsPrinted) {
  ExpectExhausted("{% set s = 'x' * 1000000 %}{% for i in range(100) %}{{ s }}{% endfor %}",
                  "prints");
  // What macros and blocks capture is bounded together, not each.
  ExpectExhausted(
      "{% set s = 'x' * 10000000 %}{% macro f(n) %}{{ s }}{% if n %}{{ f(n - 1) }}"
      "{% endif %}{% endmacro %}{{ f(20) }}",
      "bytes");
}

TEST(TemplateLimitsTest, BoundsTheSharedPartsOfValuesByTheSteps) {
  // Each level holds the one below twice: 2^60 parts, of which 60 are in memory.
  const std::string doubled =
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}"
      "{% set ns.l = [ns.l, ns.l] %}{% endfor %}";
  ExpectExhausted(doubled + "{{ ns.l }}", "");
  ExpectExhausted(doubled + "{{ ns.l | tojson }}", "");
  ExpectExhausted(doubled +
                      "{% set a = ns.l %}{% set ns.l = [1] %}{% for i in range(60) %}"
                      "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ a == ns.l }}",
                  "steps");
}

TEST(TemplateLimitsTest, BoundsTheDepthOfValues) {
  for (const char* wrap : {"[ns.l]", "{'a': ns.l}", "(ns.l,)", "cycler(ns.l)", "[ns.l].copy",
                           "[ns.l] | map('list')", "{1: ns.l}.items()", "dict(a=ns.l)"}) {
    ExpectExhausted(absl::StrCat("{% set ns = namespace(l=[]) %}{% for i in range(100000) %}"
                                 "{% set ns.l = ",
                                 wrap, " %}{% endfor %}"),
                    "deep");
  }
  TemplateJson deep = TemplateJson::array();
  for (int i = 0; i < 1000; ++i) {
    deep = TemplateJson::array({std::move(deep)});
  }
  ExpectExhausted("x", "deep", {{"messages", deep}});
}

TEST(TemplateLimitsTest, BoundsTheDepthOfTemplates) {
  constexpr int kMany = 5000;
  for (const auto& [open, close] :
       std::vector<std::pair<std::string, std::string>>{{"(", ")"},
                                                        {"[", "]"},
                                                        {"{1:", "}"},
                                                        {"not ", ""},
                                                        {"-", ""},
                                                        {"1 if 1 else ", ""},
                                                        {"f(", ")"},
                                                        {"x[", "]"},
                                                        {"x|f(", ")"}}) {
    ExpectExhausted("{{ " + Repeated(open, kMany) + "1" + Repeated(close, kMany) + " }}", "deep");
  }
  for (const char* tail : {" + 1", ".a", "[0]", "()", " | upper", " and 1", " or 1", " * 2",
                           " ** 1", " if 1", " is odd"}) {
    if (tail == std::string(" is odd")) {
      continue;  // One `is` behind another is an error of its own.
    }
    ExpectExhausted("{{ x" + Repeated(tail, kMany) + " }}", "deep");
  }
  for (const char* block :
       {"{% if 1 %}", "{% for x in y %}", "{% set x %}", "{% filter upper %}", "{% macro f() %}",
        "{% call f() %}", "{% with %}", "{% generation %}"}) {
    ExpectExhausted(Repeated(block, kMany), "deep");
  }
}

TEST(TemplateLimitsTest, BoundsTheDepthOfMacrosAndLoops) {
  ExpectExhausted("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "levels");
  ExpectExhausted(
      "{% macro f() %}{% call f() %}x{% endcall %}{{ caller is defined }}{% endmacro %}{{ f() }}",
      "levels");
  ExpectExhausted("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "levels");
  ExpectExhausted(
      "{% macro f(n) %}{% if n %}{{ [n] | map('string') | join(f(n)) }}{% endif %}"
      "{% endmacro %}{{ f(1) }}",
      "levels");
}

TEST(TemplateLimitsTest, LetsGoOfWhatHoldsItself) {
  // ASan's leak check sees what stays.
  for (const char* source :
       {"{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.l = [ns, {'a': ns}] %}x",
        "{% macro f() %}{{ g }}{% endmacro %}{% set g = [f] %}x",
        "{% set ns = namespace() %}{% for i in [1, 2] recursive %}{% set ns.l = loop %}"
        "{% macro m() %}{% endmacro %}{% set ns.m = m %}{% endfor %}x",
        "{% set ns = namespace() %}{% macro f(l) %}{% for i in [1] if 1 %}{% set ns.x = loop %}"
        "{% endfor %}{% endmacro %}{% for i in range(10000) %}{{ f(ns.x) }}{% endfor %}x",
        "{% set ns = namespace() %}{% for i in range(10000) %}{% set n = namespace(next=ns.first) "
        "%}"
        "{% set ns.first = n %}{% endfor %}x"}) {
    EXPECT_EQ(RenderSource(source, TemplateJson::object()).value_or("an error"), "x") << source;
  }
  const auto shown = RenderSource("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}",
                                  TemplateJson::object());
  EXPECT_FALSE(shown.ok());
}

TEST(TemplateLimitsTest, RefusesLongTemplatesAndOddBytes) {
  EXPECT_TRUE(ChatTemplate::Parse(std::string(jinja::kTemplateBytesMax, 'x')).ok());
  for (const std::string& source : {std::string(jinja::kTemplateBytesMax + 1, 'x'),
                                    std::string("\xff"), std::string("\xed\xa0\x80")}) {
    EXPECT_EQ(ChatTemplate::Parse(source).status().code(), absl::StatusCode::kInvalidArgument);
  }
  for (const TemplateJson& variables :
       {TemplateJson(5), TemplateJson{{"x", "\xff"}}, TemplateJson{{"x", UINT64_MAX}}}) {
    EXPECT_EQ(RenderSource("x", variables).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(TemplateLimitsTest, FailsWhereIntegersOverflow) {
  for (const char* source :
       {"{{ 9223372036854775807 + 1 }}", "{{ -9223372036854775807 - 2 }}", "{{ 2 ** 63 }}",
        "{{ 9223372036854775807 * 2 }}", "{{ -(-9223372036854775807 - 1) }}",
        "{{ (-9223372036854775807 - 1) // -1 }}", "{{ 9223372036854775808 }}",
        "{{ '9223372036854775808' | int }}", "{{ 1e300 | int }}",
        "{{ [9223372036854775807, 1] | sum }}", "{{ 10 ** 9223372036854775807 }}"}) {
    EXPECT_EQ(RenderSource(source, TemplateJson::object()).status().code(),
              absl::StatusCode::kInvalidArgument)
        << source;
  }
}

TEST(TemplateLimitsTest, RendersALongConversation) {
  TemplateJson messages = TemplateJson::array();
  std::string expected;
  for (int i = 0; i < 2000; ++i) {
    const char* role = i % 2 == 0 ? "user" : "assistant";
    const std::string content(2000, static_cast<char>('a' + i % 26));
    messages.push_back({{"role", role}, {"content", content}});
    absl::StrAppend(&expected, "<|", role, "|>\n", content, "</s>\n");
  }
  const auto rendered =
      RenderSource(ReadChatFile("turns.jinja"), {{"messages", messages}, {"eos_token", "</s>"}});
  ASSERT_TRUE(rendered.ok()) << rendered.status();
  EXPECT_EQ(*rendered, expected);
}

TEST(TemplateLimitsTest, OneTemplateServesManyThreads) {
  const auto parsed =
      ChatTemplate::Parse("{% for m in messages %}{{ m ~ ' ' ~ [1, 'a'] }}{% endfor %}");
  ASSERT_TRUE(parsed.ok());
  std::vector<std::string> results(4);
  std::vector<std::thread> threads;
  for (std::string& result : results) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        result = parsed->Render({{"messages", {"x", "y"}}}).value_or("an error");
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(results, std::vector<std::string>(4, "x [1, 'a']y [1, 'a']"));
}

}  // namespace
}  // namespace nibble
