// Whether the field of view is as round as cameras have it, as engine/pictures/roundness.py tells it.
#include <algorithm>
#include <cmath>
#include <opencv2/imgproc.hpp>
#include <optional>
#include <set>

#include "picture.hpp"

namespace {

constexpr int side = 160, lit_from = 40, sectors = 36, sectors_least = 20;
constexpr size_t points_least = 30;
constexpr double told = 0.9, refused = 0.7, near = 0.01, share_least = 0.6;

// The first and last lit pixels of each row and column, from -1 to 1, but for those at the edges of the whole.
std::vector<cv::Point2d> edge(const cv::Mat& lit) {
    std::vector<cv::Point> firsts, lasts, tops, bottoms, found;
    for (int k = 0; k < side; ++k) {
        std::vector<cv::Point> in_row, in_column;
        cv::findNonZero(lit.row(k), in_row);
        cv::findNonZero(lit.col(k), in_column);
        if (!in_row.empty()) {
            firsts.emplace_back(in_row.front().x, k);
            lasts.emplace_back(in_row.back().x, k);
        }
        if (!in_column.empty()) {
            tops.emplace_back(k, in_column.front().y);
            bottoms.emplace_back(k, in_column.back().y);
        }
    }
    if (tops.empty()) return {};
    const cv::Rect inside(cv::Point(tops.front().x + 2, firsts.front().y + 2),
                          cv::Point(tops.back().x - 1, firsts.back().y - 1));
    for (const auto* part : {&firsts, &lasts, &tops, &bottoms})
        for (const cv::Point& own : *part)
            if (inside.contains(own)) found.push_back(own);
    std::vector<cv::Point2d> half;
    for (size_t k = 0; k < found.size(); k += 2)
        half.emplace_back(found[k].x * 2.0 / side - 1, found[k].y * 2.0 / side - 1);
    return half;
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const size_t n = values.size();
    return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

// The field's width over its height: of the ellipse a x² + b y² + c x + d y = 1 on which most of the edge lies.
std::optional<double> ratio(const cv::Mat& image) {
    cv::Mat small, lit;
    cv::resize(image, small, {side, side}, 0, 0, cv::INTER_NEAREST);
    cv::threshold(brightest(small), lit, lit_from, 1, cv::THRESH_BINARY);
    cv::medianBlur(lit, lit, 3);
    const std::vector<cv::Point2d> points = edge(lit);
    std::vector<bool> on(points.size(), true);
    double a = 0, b = 0, c = 0, d = 0;
    for (int turn = 0; turn < 8; ++turn) {  // what lies off the ellipse, such as a straight cut, drops out step by step
        if (std::count(on.begin(), on.end(), true) < static_cast<long>(points_least)) return {};
        cv::Matx44d left = cv::Matx44d::eye() * 1e-12;
        cv::Vec4d right(0, 0, 0, 0);
        for (size_t k = 0; k < points.size(); ++k) {
            if (!on[k]) continue;
            const cv::Vec4d terms(points[k].x * points[k].x, points[k].y * points[k].y, points[k].x, points[k].y);
            left += terms * terms.t();
            right += terms;
        }
        const cv::Vec4d fitted = left.solve(right, cv::DECOMP_LU);
        a = fitted[0], b = fitted[1], c = fitted[2], d = fitted[3];
        if (a <= 0 || b <= 0) return {};
        std::vector<double> off, off_on;
        for (size_t k = 0; k < points.size(); ++k) {
            const auto [x, y] = points[k];
            const double slope = std::max(std::hypot(2 * a * x + c, 2 * b * y + d), 1e-6);
            off.push_back(std::abs(a * x * x + b * y * y + c * x + d * y - 1) / slope);
            if (on[k]) off_on.push_back(off[k]);
        }
        const double most = std::max(near, 1.5 * median(off_on));
        std::vector<bool> now;
        for (double own : off) now.push_back(own < most);
        const bool settled = now == on;
        on = now;
        if (settled) break;
    }
    std::set<int> seen;
    for (size_t k = 0; k < points.size(); ++k)
        if (on[k]) {
            const double angle =
                std::atan2((points[k].y + d / b / 2) * std::sqrt(b), (points[k].x + c / a / 2) * std::sqrt(a));
            seen.insert(static_cast<int>(std::floor(angle * sectors / 2 / CV_PI)));
        }
    const double share =
        static_cast<double>(std::count(on.begin(), on.end(), true)) / static_cast<double>(points.size());
    if (share < share_least || seen.size() < sectors_least) return {};
    return std::sqrt(b / a);
}

}  // namespace

bool expect_round(const cv::Mat& image) {
    const auto found = ratio(image);
    if (!found || std::min(*found, 1 / *found) >= told) return true;
    if (std::min(*found, 1 / *found) < refused)
        throw Ungradable("NOT_ROUND", "the picture was squeezed; bring it as the camera has it");
    return false;
}
